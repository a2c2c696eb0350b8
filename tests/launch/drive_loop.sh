#!/usr/bin/env bash
# Runs the restart loop on scripted answers, one case a line of stdin: seven lists split by |, their
# words by blanks: states, nodes, creates, deletes, setups, alives, runs (CODE:SECONDS). Prints what
# the loop did, word by word, a line for each case. Time is a number in a file: nobody waits.
set -euo pipefail
LAUNCH=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../launch" && pwd)
# shellcheck source=launch/lib.sh
source "$LAUNCH/lib.sh"
# shellcheck source=launch/cloud.sh
source "$LAUNCH/cloud.sh"
# shellcheck source=launch/loop.sh
source "$LAUNCH/loop.sh"

# shellcheck disable=SC2034 # the loop reads them
{
  PROJECT=my-project ZONE=us-west4-a NAME=demo TYPE=v6e-8 RUNTIME='' SLICES=1 CAPACITY=spot ACCOUNT=''
  EXTERNAL_IPS=1 VALID_UNTIL='' STORAGE='' ENV_FILE='' WORKER=all NODE=all AUTODELETE=0
  DEADLINE_HOURS=1 MAX_FAILURES=5 MAX_PREEMPTIONS=12 POLL_SECONDS=30 WHERE=() ROOT=$LAUNCH
}
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT

# The first word of a queue, or what there is without end.
take() {
  local words
  read -r -a words <"$1" || true
  TAKEN=${words[0]:-$2}
  echo "${words[*]:1}" >"$1"
}

say() { printf '%s ' "$*" >>events; }

sleep() {
  local clock
  clock=$(now)
  echo $((clock + $1)) >clock
}
now() { cat clock; }
date() { echo today; }
log() { :; }
die() { exit "$1"; }
pack() { :; }

gcloud() {
  case "$*" in
    *' describe '*)
      take states ACTIVE
      say "describe:$TAKEN"
      case $TAKEN in
        MISSING) echo 'NOT_FOUND: Resource' >&2 && return 1 ;;
        NO_NETWORK) return 1 ;;
        FOREIGN) printf 'ACTIVE\t\n' ;;
        *) printf '%s\tdemo\n' "$TAKEN" ;;
      esac
      ;;
    *' list '*)
      take nodes READY
      say "list:$TAKEN"
      printf 'demo\t%s\n' "$TAKEN"
      ;;
    *' create demo '*) answer creates create ;;
    *' delete demo --force --quiet') answer deletes delete ;;
    *' scp '* | *'--command=sh -c '*) ;;
    *'setup_host.sh'*) answer setups setup ;;
    *'host.sh alive demo') answer alives alive ;;
    *'host.sh stop demo') say stop ;;
    *'host.sh run demo today-'*' train me')
      take runs 0:100
      say "run:$TAKEN"
      sleep "${TAKEN#*:}"
      local code=${TAKEN%:*}
      if [[ $code == stopped ]]; then
        printf 'diffjax-exit 0 143 stopped\n'
        return 143
      fi
      [[ $code == 255 ]] || printf 'diffjax-exit 0 %s\n' "$code"
      return "$code"
      ;;
    *) say "UNKNOWN:$*" ;;
  esac
}

answer() {
  take "$1" yes
  say "$2:$TAKEN"
  [[ $TAKEN == yes ]]
}

while IFS='|' read -r -a lists; do
  : >events
  echo 0 >clock
  queues=(states nodes creates deletes setups alives runs)
  for i in "${!queues[@]}"; do echo "${lists[i]:-}" >"${queues[i]}"; done
  code=0
  (train train me) >/dev/null 2>&1 || code=$?
  say "exit:$code"
  printf '%s\n' "$(<events)"
done
