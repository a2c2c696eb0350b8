# shellcheck shell=bash
# The restart loop: starts a training again after each preemption, until it is done or cannot go on.
# tpu.sh sources this file. Preemptions may happen any number of times; only failures are limited.
set -euo pipefail

QUICK_SECONDS=60 # a run that ends sooner than this failed to start
QUICK_LIMIT=3
LOST_LIMIT=20

# What to do about a queued resource in this state. SUSPENDING and DELETING end by themselves.
action_for() {
  case $1 in
    ACTIVE) echo run ;;
    MISSING) echo create ;;
    SUSPENDED | FAILED | PREEMPTED) echo replace ;;
    FOREIGN) echo refuse ;;
    *) echo wait ;;
  esac
}

# What to do about a training that ended with this code. 2 to 5 would end the same way again. 143 is a
# training that was told to end and has saved. 255 is a lost connection; the training goes on.
verdict_for() {
  case $1 in
    0) echo finished ;;
    2 | 3 | 4 | 5 | stopped) echo end ;;
    143) echo preempted ;;
    255) echo lost ;;
    *) echo failed ;;
  esac
}

meaning_of() {
  case $1 in
    2) echo 'a wrong config or input' ;;
    3) echo 'it does not fit in memory' ;;
    4) echo 'it diverged' ;;
    5) echo 'the storage is full or failing: make room and run again' ;;
    stopped) echo 'stopped by tpu.sh stop: run again to go on' ;;
    *) echo "exit code $1" ;;
  esac
}

# One result for all workers, from the exit code of gcloud and the lines `diffjax-exit WORKER CODE
# [stopped]`. The code of a worker that says why it failed counts before those of workers that only
# failed because it was gone.
judge() {
  local gcloud_code=$1 lines=$2 code
  for code in 2 3 4 5; do
    if grep -qE "^diffjax-exit [0-9]+ $code( |\$)" "$lines"; then
      echo "$code"
      return
    fi
  done
  if grep -qE '^diffjax-exit .* stopped$' "$lines"; then
    echo stopped
  elif grep -qE '^diffjax-exit [0-9]+ 143$' "$lines"; then
    echo 143
  elif code=$(grep -m 1 -oE '^diffjax-exit [0-9]+ [1-9][0-9]*' "$lines"); then
    echo "${code##* }"
  elif ((gcloud_code)); then
    echo 255
  elif [[ ! -s $lines ]]; then
    echo 1
  else
    echo 0
  fi
}

# Runs the command once on all workers, passes on its output, and sets RESULT.
run_once() {
  local attempt=$1 lines line code=0
  shift
  if ((DRY_RUN)); then
    host run "$NAME" "$attempt" "$@"
    RESULT=0
    return
  fi
  lines=$(mktemp)
  host run "$NAME" "$attempt" "$@" 2>&1 | while IFS= read -r line || [[ -n $line ]]; do
    if [[ $line == 'diffjax-exit '* ]]; then
      printf '%s\n' "$line" >>"$lines"
    else
      printf '%s\n' "$line"
    fi
  done || code=$?
  RESULT=$(judge "$code" "$lines")
  rm -f "$lines"
}

# Puts code and packages on the workers, unless a training is running there.
prepare() {
  if ((! FRESH)) && host alive "$NAME" >/dev/null 2>&1; then
    log 'a training is running there: following it'
    return
  fi
  ((FRESH)) || host stop "$NAME" >/dev/null 2>&1 || true
  set_up
}

# Ends what a failed attempt left running, and mounts again what a restarted machine has lost.
clear_up() {
  host stop "$NAME" || true
  make_ready
}

# new_attempt NUMBER: a name that no earlier attempt has had.
new_attempt() { if ((DRY_RUN)); then echo ATTEMPT; else echo "$(date -u +%Y%m%dT%H%M%S)-$1"; fi; }

# train COMMAND...: returns the exit code of the training, or 1 if the loop gives up.
train() {
  local since attempt='' began verdict
  local attempts=0 failures=0 quick=0 preemptions=0 lost=0 ready=0 leftovers=0
  FRESH=0
  since=$(now)
  trap 'on_interrupt' INT
  while :; do
    must_look 10 # 20 minutes without a network
    log "$NAME: $STATE (preempted $preemptions times, failed $failures times)"
    case $(action_for "$STATE") in
      refuse) refuse ;;
      wait)
        give_up_after "$since"
        pause "$POLL_SECONDS"
        continue
        ;;
      replace)
        if [[ $STATE == FAILED ]]; then count_failure; else count_preemption; fi
        delete_resource || count_failure
        ready=0 lost=0 attempt=''
        pause "$POLL_SECONDS"
        continue
        ;;
      create)
        ready=0 lost=0 attempt=''
        if create_resource; then FRESH=1; else count_failure; fi
        since=$(now)
        pause "$POLL_SECONDS"
        continue
        ;;
      run) ;;
    esac
    if ! ready_to_run; then
      count_failure
      pause "$POLL_SECONDS"
      continue
    fi
    attempts=$((attempts + 1)) attempt=${attempt:-$(new_attempt "$attempts")} began=$(now)
    log "attempt $attempt"
    run_once "$attempt" "$@"
    verdict=$(verdict_for "$RESULT")
    case $verdict in
      finished)
        finish
        return 0
        ;;
      end)
        log "ended, and not run again: $(meaning_of "$RESULT")"
        remind
        [[ $RESULT == stopped ]] && return 143
        return "$RESULT"
        ;;
      lost)
        # the training probably goes on: follow the same attempt again, and do not disturb it
        lost=$((lost + 1))
        log "connection lost ($lost of at most $LOST_LIMIT in a row)"
        ((lost < LOST_LIMIT)) || give_up 'the workers do not answer'
        pause "$POLL_SECONDS"
        ;;
      preempted)
        lost=0 quick=0 leftovers=1 attempt=''
        count_preemption
        pause "$POLL_SECONDS"
        ;;
      failed)
        lost=0 leftovers=1 attempt=''
        if (($(now) - began < QUICK_SECONDS)); then quick=$((quick + 1)); else quick=0; fi
        log "the training ended with exit code $RESULT"
        ((quick < QUICK_LIMIT)) || give_up "$QUICK_LIMIT runs in a row ended within $QUICK_SECONDS s"
        count_failure
        pause $((POLL_SECONDS * failures))
        ;;
    esac
    since=$(now)
  done
}

# These functions change the variables of train, which calls them. Workers are set up once for each
# resource, and again after an attempt that failed.
ready_to_run() {
  if ((! ready)); then prepare; elif ((leftovers)); then clear_up; fi && ready=1 leftovers=0 FRESH=0
}

count_failure() {
  failures=$((failures + 1))
  ((failures < MAX_FAILURES)) || give_up "$failures failures"
}

count_preemption() {
  preemptions=$((preemptions + 1))
  ((preemptions < MAX_PREEMPTIONS)) || give_up "$preemptions preemptions"
}

refuse() { die 2 "$NAME exists and was not created by tpu.sh (no label $LABEL=$NAME): choose another --name"; }

give_up_after() {
  (($(now) - $1 < DEADLINE_HOURS * 3600)) || give_up "no resources within $DEADLINE_HOURS hours"
}

give_up() {
  log "given up: $1"
  remind
  exit 1
}

remind() {
  ((DRY_RUN)) || log "$NAME ($(chips_of "$TYPE") chips x $SLICES) is paid for until: launch/tpu.sh delete \
--project $PROJECT --zone $ZONE --name $NAME"
}

finish() {
  log 'done'
  ((AUTODELETE)) || remind
  ((! AUTODELETE)) || delete_resource || remind
}

on_interrupt() {
  local answer=l
  trap - INT
  printf '\n' >&2
  log "the training in $NAME goes on without this loop; the same command follows it again"
  if [[ -t 0 ]]; then
    read -r -p "[l]eave it so, [s]top the training, or [d]elete $NAME? " answer || true
  fi
  case $answer in
    s*) host stop "$NAME" --by-user || true ;;
    d*) delete_resource || true ;;
  esac
  [[ $answer == d* ]] || remind
  exit 130
}
