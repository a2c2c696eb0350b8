# shellcheck shell=bash
# Functions that the other scripts in this folder share; to be sourced, not run.
set -euo pipefail

if ((BASH_VERSINFO[0] < 4 || (BASH_VERSINFO[0] == 4 && BASH_VERSINFO[1] < 4))); then
  echo "launch: bash $BASH_VERSION is too old, 4.4 or newer is needed (macOS: brew install bash)" >&2
  exit 2
fi

DRY_RUN=${DRY_RUN:-0}

log() { printf '%s launch: %s\n' "$(date -u +%H:%M:%S)" "$*" >&2; }

# die CODE MESSAGE: 2 is a mistake that the user can correct, 1 is any other failure.
die() {
  printf 'launch: %s\n' "$2" >&2
  exit "$1"
}

need() {
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || die 2 "$tool is not installed, or not on PATH"
  done
}

# quote WORDS...: one line that any POSIX shell reads back as the same words, byte for byte. (printf
# %q would need bash on the other machine.) A word with = is unsafe only as the first of a command,
# and that word never comes from the user.
quote() {
  local LC_ALL=C word line=''
  for word in "$@"; do
    case $word in
      '' | *[!A-Za-z0-9_./:=@%+,-]*) word="'${word//\'/\'\\\'\'}'" ;;
    esac
    line+="${line:+ }$word"
  done
  printf '%s' "$line"
}

# run COMMAND...: runs the command, or with --dry-run prints it.
run() {
  if ((DRY_RUN)); then
    printf '+ %s\n' "$(quote "$@")"
  else
    "$@"
  fi
}

pause() { ((DRY_RUN)) || sleep "$1"; }

now() { date +%s; }

# retry TRIES SECONDS COMMAND...: repeats the command until it succeeds. The pause doubles each time,
# up to five minutes. Returns the last exit code.
retry() {
  local tries=$1 seconds=$2 try code
  shift 2
  for ((try = 1; ; try++)); do
    code=0
    "$@" || code=$?
    ((code)) || return 0
    ((try < tries)) || return "$code"
    log "$1 ended with $code (try $try of $tries); again in $seconds s"
    pause "$seconds"
    seconds=$((seconds * 2 > 300 ? 300 : seconds * 2))
  done
}

# matches FLAG VALUE REGEX WHAT: checks the value; the error says that it must be WHAT.
matches() {
  [[ $2 =~ ^($3)$ ]] || die 2 "$1 = '$2': must be $4"
}

# Checks that only its owner can read a file of secrets, and that it holds only NAME=VALUE lines.
check_private() {
  local line number=0
  [[ -f $1 ]] || die 2 "--env = '$1': no such file; copy launch/env.example to it"
  [[ -n $(find "$1" -maxdepth 0 -perm 600) ]] ||
    die 2 "--env = '$1': others can read it; chmod 600 it first"
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    [[ $line =~ ^([A-Za-z_][A-Za-z0-9_]*=.*|[[:space:]]*(#.*)?)$ ]] ||
      die 2 "--env = '$1': line $number is not NAME=VALUE" # the line itself may be a secret
  done <"$1"
}

# Exports the lines of such a file as they are, without quotes or expansion, like docker --env-file.
load_private() {
  local line
  [[ -f $1 ]] || return 0
  check_private "$1"
  while IFS= read -r line || [[ -n $line ]]; do
    [[ $line =~ ^[A-Za-z_][A-Za-z0-9_]*=. ]] || continue
    export "${line?}"
  done <"$1"
}
