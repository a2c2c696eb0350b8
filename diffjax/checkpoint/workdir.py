"""Checks that a workdir has room for a run, and that only one trainer uses it at a time."""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from diffjax.core.errors import ConfigError, StorageError
from diffjax.core.files import free_bytes, read_json
from diffjax.core.json_types import JsonObject
from diffjax.core.tables import format_bytes

LOCK = "lock.json"
# A trainer touches its lock file at this interval. A lock of another host counts as abandoned when
# it was not touched for three intervals.
HEARTBEAT_SECONDS = 5.0


def check_space(path: Path, needed: int) -> None:
    """Check that twice the `needed` bytes of one checkpoint are free.

    Twice, because a new checkpoint is written before an old one is deleted.

    Raises:
      StorageError: names the bytes that are free and that are needed.
    """
    free = free_bytes(path)
    if free < 2 * needed:
        raise StorageError(
            f"{path}: {format_bytes(free)} free, {format_bytes(2 * needed)} needed for two "
            f"checkpoints of {format_bytes(needed)}; make room, or name another workdir"
        )


@contextlib.contextmanager
def lock(path: Path, heartbeat: float = HEARTBEAT_SECONDS) -> Iterator[None]:
    """Hold the lock of the workdir `path`, which is made if it does not exist.

    The kernel releases the lock of a process that died, so a restart on the same machine continues
    at once. If several hosts share the folder but not their kernels' locks, the time of the lock
    file decides: its holder touches it regularly, and after three missed heartbeats another host
    takes over. If a run has several processes, only the first should take the lock.

    Raises:
      ConfigError: another process trains here; names that process, its host and its start.
    """
    path.mkdir(parents=True, exist_ok=True)
    file = path / LOCK
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    stop = threading.Event()
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(path, _holder(file)) from None
        holder = _holder(file)
        if holder.get("host") not in (None, socket.gethostname()):
            _wait_for_death(path, file, holder, heartbeat)
        me = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(me).encode(), 0)
        beat = threading.Thread(
            target=_beat, args=(file, heartbeat, stop), name="workdir lock", daemon=True
        )
        beat.start()
        try:
            yield
        finally:
            stop.set()
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _holder(file: Path) -> JsonObject:
    """The process in the lock file; empty if the lock was released or cannot be read."""
    try:
        return read_json(file, "delete it")
    except OSError:
        return {}


def _held(path: Path, holder: JsonObject) -> ConfigError:
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
    return ConfigError(
        "workdir",
        str(path),
        f"{who} trains here since {holder.get('since', '?')}; stop it, or name another workdir",
    )


def _wait_for_death(path: Path, file: Path, holder: JsonObject, heartbeat: float) -> None:
    """Return if the lock file is not touched for three heartbeats; else raise a ConfigError.

    Only changes of the file's time count, so the clocks of the hosts need not agree.
    """
    print(
        f"{path} was held by process {holder.get('pid')} on {holder['host']}: waiting "
        f"{3 * heartbeat:.0f} s for a sign of life",
        flush=True,
    )
    seen = _touched(file)
    for _ in range(30):
        time.sleep(heartbeat / 10)
        if _touched(file) != seen:
            raise _held(path, holder)


def _touched(file: Path) -> int:
    """The time of a file. Opening it asks the file server; stat alone may come from a cache."""
    with open(file, "rb") as stream:
        return os.fstat(stream.fileno()).st_mtime_ns


def _beat(file: Path, heartbeat: float, stop: threading.Event) -> None:
    while not stop.wait(heartbeat):
        with contextlib.suppress(OSError):
            os.utime(file)
