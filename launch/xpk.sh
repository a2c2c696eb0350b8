#!/usr/bin/env bash
# TPU slices of a GKE cluster, through xpk (checked with 1.16.0). One workload is one training.
#
#   launch/xpk.sh cluster [OPTIONS]                a cluster for it, with storage of the bucket attached
#   launch/xpk.sh image [OPTIONS]                  build the image of launch/docker and push it
#   launch/xpk.sh create [OPTIONS] -- ARGUMENTS    python -m diffjax.main ARGUMENTS on all slices
#   launch/xpk.sh list | logs | delete | delete-cluster [OPTIONS]
#
# Options: --project P --zone Z --cluster C --name N --type v5litepod-16 --slices 1 --image I
#   --bucket B (mounted at /mnt/diffjax) --env FILE --max-restarts 100 --spot | --reservation R --dry-run
#
# The workload starts again if the training ends with 1, 42 or 127 to 255, that is after a preemption
# (143) or a crash, at most --max-restarts times; it does not after 2, 3, 4 and 5.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
# shellcheck source=launch/lib.sh
source "$HERE/lib.sh"

PROJECT=${DIFFJAX_PROJECT:-} ZONE=${DIFFJAX_ZONE:-} NAME=${DIFFJAX_NAME:-} CLUSTER=''
TYPE='' SLICES=1 IMAGE='' BUCKET='' ENV_FILE='' RESTARTS=100 CAPACITY=(--on-demand) ARGUMENTS=()

parse() {
  while (($#)); do
    case $1 in
      --spot) CAPACITY=(--spot) ;;
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
      *) die 2 "'$1': words for the training come after --" ;;
    esac
    shift
  done
}

set_option() {
  local number='[0-9]{1,6}'
  case $1 in
    --project) PROJECT=$2 ;;
    --zone) ZONE=$2 ;;
    --name) NAME=$2 ;;
    --cluster) CLUSTER=$2 ;;
    --type) matches "$1" "$2" '[a-z0-9-]+' 'such as v5litepod-16' && TYPE=$2 ;;
    --slices) matches "$1" "$2" "$number" 'a number' && SLICES=$2 ;;
    --image) matches "$1" "$2" '[a-z0-9./_-]+:[A-Za-z0-9._-]+' 'NAME:TAG' && IMAGE=$2 ;;
    --bucket) matches "$1" "$2" '[a-z0-9][-a-z0-9_.]+' "a bucket's name" && BUCKET=$2 ;;
    --env) ENV_FILE=$2 ;;
    --max-restarts) matches "$1" "$2" "$number" 'a number' && RESTARTS=$2 ;;
    --reservation) matches "$1" "$2" '[A-Za-z0-9/_-]+' "a reservation's name" && CAPACITY=(--reservation "$2") ;;
    *) die 2 "$1 is unknown; the head of launch/xpk.sh lists the options" ;;
  esac
}

check() {
  local name='[a-z][-a-z0-9]{0,38}[a-z0-9]' what='lower-case letters, digits and dashes'
  matches --project "$PROJECT" '([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]' "a project's id"
  matches --zone "$ZONE" '[a-z]+-[a-z]+[0-9]+-[a-z]' 'such as us-west4-a'
  matches --cluster "$CLUSTER" "$name" "$what"
  [[ $1 != workload ]] || matches --name "$NAME" "$name" "$what"
  [[ -z $ENV_FILE ]] || check_private "$ENV_FILE"
  ((DRY_RUN)) || need xpk
}

# xpk VERB NOUN ...
call() {
  local noun=$1 verb=$2
  shift 2
  run xpk "$noun" "$verb" "--cluster=$CLUSTER" "--project=$PROJECT" "--zone=$ZONE" "$@"
}

# xpk pastes the command into a YAML block, where a newline ends it, and Kubernetes expands $(NAME)
# in it, so other words than plain ones go as base64. exec, because a shell would swallow SIGTERM.
pod_command() {
  local line
  line="exec $(quote "$@")"
  if [[ $line == *[!A-Za-z0-9_./:=@%+,' '-]* ]]; then
    line="echo $(printf '%s' "$line" | base64 | tr -d '\n') | base64 -d >/tmp/command && exec bash /tmp/command"
  fi
  printf '%s' "$line"
}

create() {
  local flags=(--workload="$NAME" --tpu-type="$TYPE" --num-slices="$SLICES" --docker-image="$IMAGE"
    --max-restarts="$RESTARTS" --restart-on-exit-codes=1 --termination-grace-period-seconds=120
    "${CAPACITY[@]}")
  [[ -n $TYPE ]] || die 2 "--type = '': needed, such as v5litepod-16"
  [[ -n $IMAGE ]] || die 2 "--image = '': needed, as launch/xpk.sh image pushed it"
  [[ -z $ENV_FILE ]] || flags+=(--env-file="$ENV_FILE")
  [[ -z $BUCKET ]] || flags+=(--storage=diffjax)
  call workload create "${flags[@]}" "--command=$(pod_command python -m diffjax.main "${ARGUMENTS[@]}")"
}

cluster() {
  [[ -n $TYPE ]] || die 2 "--type = '': needed, such as v5litepod-16"
  call cluster create --tpu-type="$TYPE" --num-slices="$SLICES" --enable-gcsfuse-csi-driver "${CAPACITY[@]}"
  [[ -z $BUCKET ]] || call storage attach diffjax --type=gcsfuse --auto-mount=false \
    --mount-point=/mnt/diffjax --readonly=false --bucket="$BUCKET" --mount-options=implicit-dirs
}

image() {
  [[ -n $IMAGE ]] || die 2 "--image = '': needed, where the cluster pulls from, such as my-registry/my-project/diffjax:1"
  ((DRY_RUN)) || need docker
  run docker build --build-arg ACCEL=tpu --build-arg RUN_AS=0 --file "$HERE/docker/Dockerfile" --tag "$IMAGE" "$ROOT"
  run docker push "$IMAGE"
}

main() {
  local action=${1:-}
  shift || true
  parse "$@"
  case $action in
    cluster) check cluster && cluster ;;
    image) image ;;
    create) check workload && create ;;
    list) check cluster && call workload list ;;
    # the pods of a workload have its name as the name of their job set
    logs)
      check workload
      run kubectl logs --follow --prefix "--selector=jobset.sigs.k8s.io/jobset-name=$NAME" --container=jax-tpu --tail=100
      ;;
    delete) check workload && call workload delete --workload="$NAME" ;;
    delete-cluster) check cluster && call cluster delete ;;
    *) die 2 "'$action' is no command: cluster, image, create, list, logs, delete, delete-cluster" ;;
  esac
}

main "$@"
