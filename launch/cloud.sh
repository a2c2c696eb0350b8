# shellcheck shell=bash
# All calls to gcloud for queued resources of TPUs. tpu.sh sources this file and sets its options.
# The flags are those of the GA track of the Cloud SDK 528.
set -euo pipefail

QR=(gcloud compute tpus queued-resources)
LABEL=diffjax # on everything that these scripts create; they do not touch what lacks it

# qr VERB ARGUMENTS...
qr() {
  local verb=$1
  shift
  run "${QR[@]}" "$verb" "$NAME" "${WHERE[@]}" "$@"
}

default_runtime() {
  case $1 in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

# The number of chips of a type. The names of v2 to v4 and v5p count cores, two per chip.
chips_of() {
  local number=${1##*-}
  case $1 in
    v5litepod-* | v6e-*) echo "$number" ;;
    *) echo $(((number + 1) / 2)) ;;
  esac
}

create_resource() {
  local flags=(--accelerator-type="$TYPE" --runtime-version="${RUNTIME:-$(default_runtime "$TYPE")}")
  if ((SLICES > 1)); then
    flags+=(--node-count="$SLICES" --node-prefix="$NAME")
  else
    flags+=(--node-id="$NAME")
  fi
  [[ -z $CAPACITY ]] || flags+=("--$CAPACITY")
  [[ -z $ACCOUNT ]] || flags+=(--service-account="$ACCOUNT")
  ((EXTERNAL_IPS)) || flags+=(--internal-ips)
  [[ -z $VALID_UNTIL ]] || flags+=(--valid-until-duration="$VALID_UNTIL")
  qr create "${flags[@]}" --labels="$LABEL=$NAME" "$@"
}

delete_resource() { qr delete --force --quiet; }

# Sets STATE to the state of the queued resource, or to MISSING if there is none, FOREIGN if these
# scripts did not create it, PREEMPTED or NODES_NOT_READY if it is ACTIVE but one of its nodes is
# not. Another error of gcloud, such as no network, is not taken for a missing resource.
look() {
  local errors answer label code=0
  if ((DRY_RUN)); then
    describe
    STATE=${PRETEND[0]}
    PRETEND=("${PRETEND[@]:1}")
    [[ $STATE != ACTIVE ]] || nodes
    return
  fi
  errors=$(mktemp)
  answer=$(describe 2>"$errors") || code=$?
  if ((code)); then
    if grep -q NOT_FOUND "$errors"; then STATE=MISSING code=0; else cat "$errors" >&2; fi
    rm -f "$errors"
    return "$code"
  fi
  rm -f "$errors"
  IFS=$'\t' read -r STATE label <<<"$answer"
  if [[ $label != "$NAME" ]]; then
    STATE=FOREIGN
  elif [[ $STATE == ACTIVE ]]; then
    answer=$(nodes) || return
    if grep -qE $'\t(PREEMPTED|TERMINATED)$' <<<"$answer"; then
      STATE=PREEMPTED
    elif grep -qvE $'\tREADY$' <<<"$answer" || (($(wc -l <<<"$answer") < SLICES)); then
      STATE=NODES_NOT_READY
    fi
  fi
}

describe() { qr describe "--format=value(state.state,tpu.nodeSpec[0].node.labels.$LABEL)"; }

nodes() {
  run gcloud compute tpus tpu-vm list "${WHERE[@]}" "--filter=labels.$LABEL=$NAME" \
    '--format=value(name.basename(),state)'
}

# must_look TRIES
must_look() { retry "$1" 5 look || die 1 "gcloud cannot tell the state of $NAME: see its error above"; }

# on_workers WORDS...: runs the words as one command line on all workers at the same time. By default
# gcloud starts the second batch of 64 workers after the first has ended, which it never does if it
# waits for the second. --output-directory is not used, because SDK 528 writes to a folder named None.
on_workers() {
  local flags=(--node="$NODE" --worker="$WORKER" --batch-size=all)
  ((EXTERNAL_IPS)) || flags+=(--internal-ip)
  qr ssh "${flags[@]}" "--command=$(quote "$@")"
}

host() { on_workers bash diffjax/code/launch/host.sh "$@"; }

to_workers() {
  local flags=(--node="$NODE" --worker="$WORKER" --batch-size=all)
  ((EXTERNAL_IPS)) || flags+=(--internal-ip)
  run "${QR[@]}" scp "$@" "$NAME:diffjax/" "${WHERE[@]}" "${flags[@]}"
}

# Makes an archive of the committed code, with the hash of the commit in it.
pack() {
  local archive=$1
  git -C "$ROOT" diff --quiet HEAD || log 'changes that are not committed stay here'
  run git -C "$ROOT" archive --format=tar.gz --add-virtual-file="COMMIT:$(git -C "$ROOT" rev-parse HEAD)" \
    --output="$archive" HEAD
}

# Puts code, secrets and packages on every worker.
set_up() {
  local folder=/tmp code=0
  ((DRY_RUN)) || folder=$(mktemp -d)
  send "$folder" || code=$?
  ((DRY_RUN)) || rm -rf "$folder"
  return "$code"
}

# The env file has mode 600 and its folder mode 700 before the first byte is written.
send() {
  local archive=$1/code.tar.gz files=("$1/code.tar.gz")
  if [[ -n $ENV_FILE ]]; then
    run install -m 600 "$ENV_FILE" "$1/env" || return
    files+=("$1/env")
  fi
  pack "$archive" &&
    on_workers sh -c 'mkdir -p diffjax && chmod 700 diffjax' &&
    to_workers "${files[@]}" &&
    on_workers sh -c 'cd diffjax && rm -rf new && mkdir new && tar -xzf code.tar.gz -C new && rm -rf code && mv new code' &&
    make_ready
}

make_ready() {
  local flags=(--accel tpu)
  [[ -z $STORAGE ]] || flags+=(--mount "$STORAGE")
  on_workers bash diffjax/code/launch/setup_host.sh "${flags[@]}"
}
