#!/usr/bin/env bash
# Prepares a worker: mounts the storage and installs Python and the locked packages. If nothing has
# changed, a second run does nothing.
#
#   setup_host.sh [--accel tpu|cuda|cpu] [--mount gs://BUCKET | IP:/SHARE]
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/lib.sh
source "$HERE/lib.sh"

BASE=${DIFFJAX_HOME:-$HOME/diffjax}
MOUNT_POINT=${DIFFJAX_MOUNT:-/mnt/diffjax}
GCSFUSE_VERSION=${GCSFUSE_VERSION:-2.7.0}
PYTHON_VERSION=3.12 # the image's own Python may be too old for diffjax

# A machine that has just booted updates itself and holds apt's lock for minutes.
apt_install() { sudo apt-get -o DPkg::Lock::Timeout=120 install --yes --quiet "$@"; }

install_gcsfuse() {
  local package=/tmp/gcsfuse_${GCSFUSE_VERSION}_amd64.deb
  retry 5 5 curl --silent --show-error --fail --location --output "$package" \
    "https://github.com/GoogleCloudPlatform/gcsfuse/releases/download/v$GCSFUSE_VERSION/${package##*/}"
  retry 5 10 apt_install "$package"
}

# Mounts storage that outlives the machine: a bucket, or a share of a file server.
mount_storage() {
  local source=$1
  if mountpoint --quiet "$MOUNT_POINT"; then
    log "$MOUNT_POINT is mounted"
    return
  fi
  sudo mkdir -p "$MOUNT_POINT"
  sudo chown "$(id -un)" "$MOUNT_POINT"
  if [[ $source == gs://* ]]; then
    command -v gcsfuse >/dev/null || install_gcsfuse
    # names are not cached, because workers must see what other workers write
    retry 5 5 gcsfuse --implicit-dirs --stat-cache-ttl 0 --type-cache-ttl 0 \
      --rename-dir-limit 1000000 "${source#gs://}" "$MOUNT_POINT"
  else
    command -v mount.nfs >/dev/null || retry 5 10 apt_install nfs-common
    retry 5 5 sudo mount -t nfs "$source" "$MOUNT_POINT"
  fi
  log "$source is at $MOUNT_POINT"
}

# Newer systems forbid pip in their own Python without this flag, and older versions of pip lack it.
install_uv() {
  python3 -m pip install --user --quiet uv ||
    python3 -m pip install --user --quiet --break-system-packages uv
}

install_python() {
  local accel=$1 code=$BASE/code stamp extras=hub
  [[ $accel == cpu ]] || extras+=,$accel
  stamp="$accel $PYTHON_VERSION $(cat "$code/requirements.txt" "$code/launch/constraints.txt" \
    "$code/pyproject.toml" | sha256sum)"
  if [[ -e $BASE/venv/stamp && $(<"$BASE/venv/stamp") == "$stamp" ]]; then
    log "Python and its packages are up to date"
    return
  fi
  export PATH="$HOME/.local/bin:$PATH"
  command -v uv >/dev/null || retry 3 5 install_uv
  retry 3 5 uv venv --quiet --allow-existing --python "$PYTHON_VERSION" "$BASE/venv"
  retry 3 10 uv pip install --quiet --python "$BASE/venv/bin/python" \
    --constraints "$code/launch/constraints.txt" --editable "${code}[$extras]"
  echo "$stamp" >"$BASE/venv/stamp"
}

main() {
  local accel=tpu mount=''
  while (($#)); do
    case $1 in
      --accel) accel=${2:-} ;;
      --mount) mount=${2:-} ;;
      *) die 2 "setup_host.sh: $1 is unknown; --accel and --mount are known" ;;
    esac
    shift 2
  done
  matches --accel "$accel" 'tpu|cuda|cpu' 'tpu, cuda or cpu'
  [[ -z $mount ]] || mount_storage "$mount"
  install_python "$accel"
  "$BASE/venv/bin/python" -c 'import platform, jax; print("Python", platform.python_version(), "jax", jax.__version__)'
  log "ready: $(hostname), code of commit $(cat "$BASE/code/COMMIT" 2>/dev/null || echo unknown)"
}

main "$@"
