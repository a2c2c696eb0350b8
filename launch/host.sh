#!/usr/bin/env bash
# Runs on every worker. The training is a session of its own, so it goes on if the connection that
# started it is lost. A second call with the same attempt follows it, or reports how it ended.
#
#   host.sh run NAME ATTEMPT COMMAND...   start or follow; the exit code is the command's
#   host.sh exec COMMAND...               run in the code's folder with its environment, and wait
#   host.sh stop NAME [--by-user]         SIGTERM, after 60 s SIGKILL; waits until it has ended
#   host.sh logs NAME [--follow]
#   host.sh alive NAME                    exit code 0 if it runs here
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/lib.sh
source "$HERE/lib.sh"

BASE=${DIFFJAX_HOME:-$HOME/diffjax}
METADATA=http://metadata.google.internal/computeMetadata/v1/instance/attributes

worker() {
  [[ -n ${DIFFJAX_WORKER:-} ]] ||
    DIFFJAX_WORKER=$(curl --silent --fail --max-time 2 -H 'Metadata-Flavor: Google' \
      "$METADATA/agent-worker-number" || echo 0)
  printf '%s' "$DIFFJAX_WORKER"
}

enter() {
  load_private "$BASE/env"
  export PATH="$BASE/venv/bin:$PATH" VIRTUAL_ENV="$BASE/venv"
  cd "$BASE/code"
}

# The training holds this lock while it runs. Its process id would not do: it may be used again.
alive() { [[ -e $1/alive ]] && ! flock --nonblock "$1/alive" true; }

# Leads a session of its own: runs the command, and at the end writes its exit code to a file.
supervise() {
  local folder=$1 attempt=$2 child code=0 last=0
  shift 2
  exec 8>"$folder/alive"
  flock 8
  # shellcheck disable=SC2064 # these are the values of now
  trap "write_exit '$folder/$attempt.exit' \$?" EXIT
  echo "$attempt" >"$folder/attempt"
  touch "$folder/started"
  enter
  "$@" &
  child=$!
  echo "$child" >"$folder/pid"
  # shellcheck disable=SC2064
  trap "kill -TERM $child" TERM
  wait "$child" || code=$?
  while kill -0 "$child" 2>/dev/null; do # a signal to this shell ends the wait but not the command
    code=0
    wait "$child" || code=$?
  done
  wait "$child" 2>/dev/null || last=$?
  ((last == 127)) || code=$last # 127: an earlier wait has returned the code
  exit "$code"
}

# ssh itself exits with 255, and gcloud then runs the command again, so we never exit with 255.
write_exit() {
  echo $(($2 == 255 ? 254 : $2)) >"$1.new"
  mv "$1.new" "$1"
}

start() {
  local folder=$1 attempt=$2 leader
  rm -f "$folder/started" "$folder/stop"
  # 9 is the lock of this caller; the training must not inherit it
  setsid "$HERE/host.sh" supervise "$@" </dev/null >>"$folder/$attempt.log" 2>&1 9>&- &
  leader=$!
  echo "$leader" >"$folder/leader"
  while [[ ! -e $folder/started ]] && kill -0 "$leader" 2>/dev/null; do sleep 0.05; done
}

start_or_follow() {
  local attempt=$2 folder=$BASE/runs/$1 lines=+1 code=254
  shift 2
  DIFFJAX_WORKER=$(worker)
  mkdir -p "$folder"
  exec 9>"$folder/starting"
  flock 9 # the same command may arrive twice if a connection was lost
  if alive "$folder"; then
    attempt=$(<"$folder/attempt")
    lines=20
    log "attempt $attempt is running here; following it"
  elif [[ ! -e $folder/$attempt.log ]]; then
    start "$folder" "$attempt" "$@"
  fi
  exec 9>&-
  if [[ $(worker) == 0 ]]; then
    tail -n "$lines" -s 0.2 -f --pid="$(<"$folder/leader")" "$folder/$attempt.log"
  else
    tail -s 0.2 -f --pid="$(<"$folder/leader")" /dev/null
  fi
  [[ -e $folder/$attempt.exit || ! -e $folder/alive ]] || flock "$folder/alive" true
  # no file means 254: the machine was restarted, or the session's leader was killed
  [[ ! -e $folder/$attempt.exit ]] || code=$(<"$folder/$attempt.exit")
  if ((code)) && [[ $(worker) != 0 ]]; then
    tail -n 30 "$folder/$attempt.log" | sed "s/^/[worker $(worker)] /"
  fi
  # gcloud reports the exit code of one worker only, so every worker prints its own for the loop
  printf '\ndiffjax-exit %s %s%s\n' "$(worker)" "$code" "$([[ ! -e $folder/stop ]] || echo ' stopped')"
  return "$code"
}

stop() {
  local folder=$BASE/runs/$1 leader tenths
  alive "$folder" || return 0
  [[ ${2:-} != --by-user ]] || touch "$folder/stop"
  leader=$(<"$folder/leader")
  kill -TERM "$(<"$folder/pid")" 2>/dev/null || true
  for ((tenths = 0; tenths < 10 * ${DIFFJAX_GRACE:-60}; tenths++)); do
    alive "$folder" || return 0
    sleep 0.1
  done
  log "did not end after SIGTERM: killed"
  kill -KILL -- "-$leader" 2>/dev/null || true
}

logs() {
  local folder=$BASE/runs/$1 follow=()
  [[ -e $folder/attempt ]] || die 2 "no run of the name '$1' on worker $(worker)"
  [[ ${2:-} != --follow ]] || follow=(-f)
  tail -n 100 "${follow[@]}" "$folder/$(<"$folder/attempt").log"
}

action=${1:-}
shift || true
case $action in
  run) start_or_follow "$@" ;;
  exec)
    enter
    exec "$@"
    ;;
  alive) alive "$BASE/runs/$1" ;;
  stop | logs | supervise) "$action" "$@" ;;
  *) die 2 "host.sh '$action': must be run, exec, stop, logs or alive" ;;
esac
