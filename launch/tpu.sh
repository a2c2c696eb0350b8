#!/usr/bin/env bash
# Cloud TPU VMs as queued resources. `train` does everything, and starts again after preemptions.
#
#   launch/tpu.sh train [OPTIONS] -- ARGUMENTS    python -m diffjax.main ARGUMENTS on all workers
#   launch/tpu.sh run [OPTIONS] -- COMMAND        any command in the code's folder, on all workers
#   launch/tpu.sh create | wait | setup | logs | ssh | status | stop | delete [OPTIONS]
#
# Options (project, zone and name also from DIFFJAX_PROJECT, DIFFJAX_ZONE, DIFFJAX_NAME):
#   --project P --zone Z --name N   which queued resource
#   --type v5litepod-16             accelerator type (create, train)
#   --runtime V                     runtime version; else the one for the type
#   --slices N                      multislice: N slices of that type
#   --spot | --reserved             capacity; else on demand
#   --mount gs://BUCKET | IP:/SHARE storage that outlives the machines, at /mnt/diffjax
#   --env FILE                      secrets for the workers, mode 600: see launch/env.example
#   --service-account A             the account that the machines run as
#   --internal                      no external addresses
#   --valid-until 6h                cancel the request if it waits longer
#   --deadline-hours 24             train and wait give up after this time without resources
#   --max-failures 5                train gives up after this number; preemptions do not count
#   --autodelete                    train deletes the resource when it is done
#   --unattended                    create: the machines train by themselves; -- ARGUMENTS
#   --secret S --worker W --node N --follow --yes --dry-run
#
# Exit codes: 0 done, 1 gave up, 2 wrong usage; of train: those of the training (README.md).
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
# shellcheck source=launch/lib.sh
source "$HERE/lib.sh"
# shellcheck source=launch/cloud.sh
source "$HERE/cloud.sh"
# shellcheck source=launch/loop.sh
source "$HERE/loop.sh"

PROJECT=${DIFFJAX_PROJECT:-} ZONE=${DIFFJAX_ZONE:-} NAME=${DIFFJAX_NAME:-}
TYPE='' RUNTIME='' SLICES=1 CAPACITY='' ACCOUNT='' EXTERNAL_IPS=1 VALID_UNTIL=''
STORAGE='' ENV_FILE='' SECRET='' UNATTENDED=0 WORKER=all NODE=all FOLLOW=() YES=0
AUTODELETE=0 DEADLINE_HOURS=24 MAX_FAILURES=5 MAX_PREEMPTIONS=10000
POLL_SECONDS=${DIFFJAX_POLL_SECONDS:-30}
MOUNT_POINT=${DIFFJAX_MOUNT:-/mnt/diffjax}
ARGUMENTS=()

parse() {
  while (($#)); do
    case $1 in
      --spot | --reserved) CAPACITY=${1#--} ;;
      --internal) EXTERNAL_IPS=0 ;;
      --autodelete) AUTODELETE=1 ;;
      --unattended) UNATTENDED=1 ;;
      --follow) FOLLOW=(--follow) ;;
      --yes) YES=1 ;;
      --dry-run) DRY_RUN=1 ;;
      --)
        shift
        ARGUMENTS=("$@")
        break
        ;;
      --*)
        (($# > 1)) || die 2 "$1 needs a value"
        set_option "$1" "$2"
        shift
        ;;
      *) die 2 "'$1': words for the training or command come after --" ;;
    esac
    shift
  done
}

set_option() {
  local number='[1-9][0-9]{0,5}'
  case $1 in
    --project) PROJECT=$2 ;;
    --zone) ZONE=$2 ;;
    --name) NAME=$2 ;;
    --type) matches "$1" "$2" 'v[0-9][a-z]*-[0-9]+' 'such as v5litepod-16 or v6e-8' && TYPE=$2 ;;
    --runtime) matches "$1" "$2" '[a-z][-a-z0-9.]*' 'such as v2-alpha-tpuv6e' && RUNTIME=$2 ;;
    --slices) matches "$1" "$2" "$number" 'a number' && SLICES=$2 ;;
    --mount) matches "$1" "$2" 'gs://[a-z0-9][-a-z0-9_.]+|[0-9.]+:/[A-Za-z0-9_/]+' \
      'gs://BUCKET or IP:/SHARE' && STORAGE=$2 ;;
    --env) ENV_FILE=$2 ;;
    --secret) matches "$1" "$2" '[A-Za-z0-9_-]+' 'the name of a secret' && SECRET=$2 ;;
    --service-account) matches "$1" "$2" '[a-z0-9-]+@[a-z0-9.-]+' 'an e-mail address' && ACCOUNT=$2 ;;
    --valid-until) matches "$1" "$2" '[0-9]+[smhd]' 'such as 6h' && VALID_UNTIL=$2 ;;
    --deadline-hours) matches "$1" "$2" "$number" 'a number' && DEADLINE_HOURS=$2 ;;
    --max-failures) matches "$1" "$2" "$number" 'a number' && MAX_FAILURES=$2 ;;
    --worker) matches "$1" "$2" 'all|[0-9,-]+' 'all or numbers' && WORKER=$2 ;;
    --node) matches "$1" "$2" 'all|[0-9,-]+' 'all or numbers' && NODE=$2 ;;
    *) die 2 "$1 is unknown; the head of launch/tpu.sh lists the options" ;;
  esac
}

check() {
  matches --project "$PROJECT" '([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]' "a project's id"
  matches --zone "$ZONE" '[a-z]+-[a-z]+[0-9]+-[a-z]' 'such as us-west4-a'
  matches --name "$NAME" '[a-z][-a-z0-9]{0,38}[a-z0-9]' 'lower-case letters, digits and dashes'
  [[ -z $ENV_FILE ]] || check_private "$ENV_FILE"
  WHERE=("--project=$PROJECT" "--zone=$ZONE")
  ((DRY_RUN)) || need gcloud git
}

check_type() { [[ -n $TYPE ]] || die 2 "--type = '': needed to create, such as v5litepod-16"; }

# Refuses a workdir on the disk of a spot machine, because it is lost with the machine.
check_workdir() {
  local word previous='' workdir=''
  for word in "${ARGUMENTS[@]}"; do
    [[ $previous == --workdir ]] && workdir=$word
    [[ $word == --workdir=* ]] && workdir=${word#*=}
    previous=$word
  done
  [[ $CAPACITY != spot || $workdir == "$MOUNT_POINT"/* && -n $STORAGE ]] ||
    die 2 "--workdir = '$workdir': a spot machine's disk goes with it; use --mount, and a folder below $MOUNT_POINT"
}

wait_until_active() {
  local since
  since=$(now)
  while :; do
    must_look 10
    case $(action_for "$STATE") in
      run) break ;;
      wait) ;;
      refuse) refuse ;;
      *) die 1 "$NAME is $STATE and will not become ACTIVE: create it, or delete it and create it anew" ;;
    esac
    log "$NAME: $STATE"
    give_up_after "$since"
    pause "$POLL_SECONDS"
  done
  log "$NAME is ready"
}

ours_or_missing() {
  must_look 3
  [[ $STATE != FOREIGN ]] || refuse
}

# Puts code and command into the bucket, where startup.sh fetches them, so this machine may sleep.
create_unattended() {
  local bucket=$STORAGE/launch/$NAME folder metadata
  [[ $STORAGE == gs://* ]] || die 2 "--mount = '$STORAGE': --unattended needs gs://BUCKET"
  [[ -z $ENV_FILE ]] || die 2 "--env: for --unattended keep secrets in Secret Manager and name them by --secret"
  ((${#ARGUMENTS[@]})) || die 2 '--unattended needs -- ARGUMENTS of python -m diffjax.main'
  if ((DRY_RUN)); then folder=/tmp; else folder=$(mktemp -d); fi
  pack "$folder/code.tar.gz"
  if ((! DRY_RUN)); then quote python -m diffjax.main "${ARGUMENTS[@]}" >"$folder/command"; fi
  run gcloud storage cp "$folder/code.tar.gz" "$folder/command" "$bucket/" "--project=$PROJECT"
  ((DRY_RUN)) || rm -rf "$folder"
  metadata="diffjax-name=$NAME,diffjax-source=$bucket,diffjax-mount=$STORAGE"
  metadata+=",diffjax-secret=$SECRET,diffjax-autodelete=$AUTODELETE"
  create_resource "--metadata=$metadata" "--metadata-from-file=startup-script=$HERE/startup.sh"
}

delete_if_ours() {
  ours_or_missing
  if [[ $STATE == MISSING ]]; then
    log "there is no $NAME: nothing to delete"
  elif ((YES)); then
    qr delete --force --quiet
  else
    qr delete --force
  fi
}

main() {
  local action=${1:-}
  shift || true
  parse "$@"
  PRETEND=(ACTIVE)
  [[ $action != train ]] || PRETEND=(MISSING ACTIVE)
  case $action in
    create)
      check && check_type
      if ((UNATTENDED)); then create_unattended; else create_resource; fi
      ;;
    wait) check && wait_until_active ;;
    setup) check && ours_or_missing && set_up ;;
    run)
      ((${#ARGUMENTS[@]})) || die 2 'run needs -- COMMAND'
      check && host exec "${ARGUMENTS[@]}"
      ;;
    train)
      check && check_type && check_workdir
      train python -m diffjax.main "${ARGUMENTS[@]}"
      ;;
    logs)
      [[ $WORKER != all ]] || WORKER=0 NODE=0
      check && host logs "$NAME" "${FOLLOW[@]}"
      ;;
    ssh)
      check
      ssh_to "$([[ $NODE == all ]] || printf '%s' "-$NODE")"
      ;;
    status) check && qr describe '--format=yaml(name,state,tpu.nodeSpec[].nodeId)' && nodes ;;
    stop) check && host stop "$NAME" --by-user ;;
    delete) check && delete_if_ours ;;
    *) die 2 "'$action' is no command: train, run, create, wait, setup, logs, ssh, status, stop, delete" ;;
  esac
}

# Opens a shell on one worker. The nodes of a multislice are called NAME-0, NAME-1, ...
ssh_to() {
  [[ $WORKER != all ]] || WORKER=0
  ((EXTERNAL_IPS)) || WHERE+=(--internal-ip)
  run gcloud compute tpus tpu-vm ssh "$NAME$1" "${WHERE[@]}" --worker="$WORKER"
}

main "$@"
