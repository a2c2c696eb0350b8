#!/usr/bin/env bash
# The start-up script of `tpu.sh create --unattended`, which root runs on every worker at every boot.
# It fetches the code and the command from the bucket, runs the command, and copies its log there,
# so no other machine has to stay on. A preempted machine is not created again.
set -euo pipefail

METADATA=http://metadata.google.internal/computeMetadata/v1/instance
HOME=${HOME:-/root}
export HOME DIFFJAX_HOME=${DIFFJAX_HOME:-$HOME/diffjax}
GRACE_SECONDS=600 # the time that a person has to look before --autodelete

attribute() {
  curl --silent --fail --max-time 5 -H 'Metadata-Flavor: Google' "$METADATA/attributes/$1" || true
}

fetch() {
  local source=$1 secret=$2
  mkdir -p "$DIFFJAX_HOME"
  chmod 700 "$DIFFJAX_HOME"
  gcloud storage cp "$source/code.tar.gz" "$source/command" "$DIFFJAX_HOME/"
  rm -rf "$DIFFJAX_HOME/code"
  mkdir "$DIFFJAX_HOME/code"
  tar -xzf "$DIFFJAX_HOME/code.tar.gz" -C "$DIFFJAX_HOME/code"
  [[ -z $secret ]] || (
    umask 077
    gcloud secrets versions access latest "--secret=$secret" >"$DIFFJAX_HOME/env"
    chmod 600 "$DIFFJAX_HOME/env"
  )
}

# The same rules as in the restart loop: a wrong config is not run again, a failure three times.
train() {
  local name=$1 try code=1 command
  command=$(<"$DIFFJAX_HOME/command")
  for try in 1 2 3; do
    code=0
    # the file holds words quoted for a shell
    eval "bash \"\$DIFFJAX_HOME/code/launch/host.sh\" run \"\$name\" \"boot-\$(date +%s%N)-$try\" $command" || code=$?
    case $code in
      0 | 2 | 3 | 4 | 5) break ;;
    esac
    sleep 60
  done
  return "$code"
}

main() {
  local name source worker code=0 zone
  name=$(attribute diffjax-name) source=$(attribute diffjax-source) worker=$(attribute agent-worker-number)
  [[ -n $name && -n $source ]] || exit 0 # these scripts did not create this machine
  if gcloud storage ls "$source/ended-$worker" >/dev/null 2>&1; then
    echo "ended before this boot: see $source/ended-$worker"
    exit 0
  fi
  fetch "$source" "$(attribute diffjax-secret)"
  bash "$DIFFJAX_HOME/code/launch/setup_host.sh" --mount "$(attribute diffjax-mount)"
  train "$name" || code=$?
  gcloud storage cp "$DIFFJAX_HOME/runs/$name/*.log" "$source/logs-$worker/" || true
  if [[ $code == [02345] ]]; then
    echo "$code" | gcloud storage cp - "$source/ended-$worker"
  fi
  if ((code == 0)) && [[ $worker == 0 && $(attribute diffjax-autodelete) == 1 ]]; then
    sleep "$GRACE_SECONDS"
    zone=$(curl --silent --fail -H 'Metadata-Flavor: Google' "$METADATA/zone")
    gcloud compute tpus queued-resources delete "$name" "--zone=${zone##*/}" --force --quiet --async
  fi
}

main
