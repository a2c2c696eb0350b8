# shellcheck shell=bash
# The restart loop: a training goes on over preemptions until it is done or cannot go on; sourced by
# tpu.sh. Preemptions are the weather and cost nothing but time; failures are counted apart.
set -euo pipefail

QUICK_SECONDS=60 # a run that ends sooner than this failed to start
QUICK_LIMIT=3
LOST_LIMIT=20

# What to do about a queued resource in this state. SUSPENDING and DELETING pass by themselves.
action_for() {
  case $1 in
    ACTIVE) echo run ;;
    MISSING) echo create ;;
    SUSPENDED | FAILED | PREEMPTED) echo replace ;;
    FOREIGN) echo refuse ;;
    *) echo wait ;;
  esac
}

# What to do about a training that ended so. 5, a full disk, is not mended by running again either;
# 143 is a training told to end, which saved; 255 is a connection lost, with the training going on.
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

# One word for all workers, from the code of gcloud and the lines `diffjax-exit WORKER CODE [stopped]`.
# One that tells why weighs more than those that died of its absence.
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

# Sets RESULT: one run on all workers, its output passed on.
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

# Code and packages on the workers, but never under a training that is running.
prepare() {
  if ((! FRESH)) && host alive "$NAME" >/dev/null 2>&1; then
    log 'a training is running there: following it'
    return
  fi
  ((FRESH)) || host stop "$NAME" >/dev/null 2>&1 || true
  set_up
}

# What a failed attempt left running is ended, and what a restarted machine lost is mounted again.
clear_up() {
  host stop "$NAME" || true
  make_ready
}

# new_attempt NUMBER: another name than that of any attempt before.
new_attempt() { if ((DRY_RUN)); then echo ATTEMPT; else echo "$(date -u +%Y%m%dT%H%M%S)-$1"; fi; }

# train COMMAND...: the exit code is the training's, or 1 when it is given up.
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
        # the training may well go on: ask for the same attempt, and leave it alone
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

# These change the variables of train, which calls them. Ready is made once for each resource, and again
# after an attempt that failed.
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
