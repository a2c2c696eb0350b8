"""Checks that a workdir has room for a run, and that only one trainer uses it at a time."""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from diffjax.core.errors import ConfigError, StorageError
from diffjax.core.files import free_bytes, read_json, set_aside
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


class Lock:
    """A held lock. Another process may have taken it over while this one was paused."""

    def __init__(self, path: Path, token: str):
        self._path, self._token = path, token

    def check(self) -> None:
        """Raise a ConfigError unless this process still holds the lock; it must not write then.

        A lock file that is gone or cannot be read is nobody else's.
        """
        holder = _holder(self._path / LOCK)
        if holder.get("token", self._token) != self._token:
            raise ConfigError(
                "workdir",
                str(self._path),
                f"{_who(holder)} took over while this process was paused, so this one stops and "
                "writes no more",
            )


@contextlib.contextmanager
def lock(path: Path, heartbeat: float = HEARTBEAT_SECONDS) -> Iterator[Lock]:
    """Hold the lock of the workdir `path`, which is made if it does not exist.

    The kernel releases the lock of a process that died, so a restart on the same machine continues
    at once. If several hosts share the folder but not their kernels' locks, or the disk has no
    locks, the time of the lock file decides: its holder touches it regularly, and after three
    missed heartbeats another process takes over. If a run has several processes, only the first
    should take the lock.

    Raises:
      ConfigError: another process trains here; names that process, its host and its start.
    """
    path.mkdir(parents=True, exist_ok=True)
    file = path / LOCK
    if file.is_dir() or (file.is_symlink() and not file.exists()):
        set_aside(file, "not a file")
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    stop = threading.Event()
    try:
        by_kernel = _flock(descriptor, path, file)
        holder = _holder(file)
        if _may_live(holder, by_kernel):
            _wait_for_death(path, file, holder, heartbeat)
        token = secrets.token_hex(8)
        me = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "token": token,
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(me).encode(), 0)
        held = Lock(path, token)
        if not by_kernel:  # another process may have written at the same time
            time.sleep(heartbeat / 5)
            held.check()
        beat = threading.Thread(
            target=_beat, args=(file, heartbeat, stop, held), name="workdir lock", daemon=True
        )
        beat.start()
        try:
            yield held
        finally:
            stop.set()
            with contextlib.suppress(ConfigError, OSError):
                held.check()
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, path: Path, file: Path) -> bool:
    """Take the kernel's lock; False if this disk has none.

    Raises:
      ConfigError: another process of this machine has it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _held(path, _holder(file)) from None
    except OSError as error:  # Lustre without -o flock, some NFS
        print(f"{path}: this disk has no locks ({error.strerror}); heartbeats decide", flush=True)
        return False
    return True


def _may_live(holder: JsonObject, by_kernel: bool) -> bool:
    """Whether the process in the lock file may still train, as far as this host can know."""
    if holder.get("host") is None:
        return False
    if holder["host"] != socket.gethostname():
        return True
    pid = holder.get("pid")
    return not by_kernel and isinstance(pid, int) and _lives(pid)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _holder(file: Path) -> JsonObject:
    """The process in the lock file; empty if the lock was released or cannot be read."""
    try:
        return read_json(file, "delete it")
    except OSError:  # a StorageError too
        return {}


def _held(path: Path, holder: JsonObject) -> ConfigError:
    return ConfigError(
        "workdir",
        str(path),
        f"{_who(holder)} trains here since {holder.get('since', '?')}; stop it, or name another "
        "workdir",
    )


def _who(holder: JsonObject) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"


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


def _beat(file: Path, heartbeat: float, stop: threading.Event, held: Lock | None = None) -> None:
    while not stop.wait(heartbeat):
        with contextlib.suppress(OSError, ConfigError):
            if held is not None:
                held.check()  # the next holder's file is not for this process to touch
            os.utime(file)
