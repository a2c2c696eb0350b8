import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from diffjax.checkpoint import workdir
from diffjax.core.errors import ConfigError, StorageError

HOLD = """
import sys, time
from pathlib import Path
from diffjax.checkpoint import workdir
with workdir.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path / "run"."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_trainer_is_refused_until_the_first_has_died(holder, tmp_path):
    start = time.monotonic()
    with pytest.raises(ConfigError) as refused, workdir.lock(tmp_path / "run"):
        pass
    assert time.monotonic() - start < 2
    words = str(refused.value)
    assert f"process {holder.pid} on {os.uname().nodename} trains here since 20" in words
    assert "\n" not in words
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    start = time.monotonic()
    with workdir.lock(tmp_path / "run"):
        assert json.loads((tmp_path / "run/lock.json").read_text())["pid"] == os.getpid()
    assert time.monotonic() - start < 2


def test_a_released_lock_names_no_process(tmp_path):
    with workdir.lock(tmp_path), pytest.raises(ConfigError), workdir.lock(tmp_path):
        pass
    assert (tmp_path / "lock.json").read_text() == ""
    with workdir.lock(tmp_path):
        pass


def left_by_another_host(path):
    path.mkdir()
    lock = path / "lock.json"
    lock.write_text(json.dumps({"pid": 7, "host": "elsewhere", "since": "2026-01-01"}))
    return lock


def test_the_lock_of_a_dead_host_is_taken_over_after_three_heartbeats(tmp_path):
    lock = left_by_another_host(tmp_path / "run")
    start = time.monotonic()
    with workdir.lock(tmp_path / "run", heartbeat=0.1):
        assert 0.3 <= time.monotonic() - start < 2
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_a_host_that_sends_heartbeats_keeps_its_lock(tmp_path):
    """On a network disk, kernels may not share their locks."""
    lock = left_by_another_host(tmp_path / "run")
    stop = threading.Event()
    beat = threading.Thread(target=workdir._beat, args=(lock, 0.05, stop))
    beat.start()
    try:
        with (
            pytest.raises(ConfigError, match="process 7 on elsewhere trains here"),
            workdir.lock(tmp_path / "run", heartbeat=0.2),
        ):
            pass
    finally:
        stop.set()
        beat.join()


def test_an_unreadable_lock_file_is_ignored(tmp_path):
    (tmp_path / "lock.json").write_bytes(b"\xff\x00 not json")
    with workdir.lock(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()


def test_a_run_needs_free_space_for_two_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir, "free_bytes", lambda path: 3_000_000)
    workdir.check_space(tmp_path, 1_500_000)
    with pytest.raises(StorageError, match=r"3 MB free, 3\.2 MB needed for two .* of 1\.6 MB"):
        workdir.check_space(tmp_path, 1_600_000)


def test_nothing_touches_a_lock_that_was_given_back(tmp_path):
    """Another host would take the next holder's silence for life."""
    with workdir.lock(tmp_path, heartbeat=0.01):
        (beat,) = (one for one in threading.enumerate() if one.name == "workdir lock")
    beat.join(2)
    assert not beat.is_alive()


@pytest.fixture
def without_flock(monkeypatch):
    """A disk such as Lustre's, whose flock fails."""

    def flock(descriptor, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(workdir.fcntl, "flock", flock)


def test_a_disk_without_locks_can_be_trained_on_and_a_second_trainer_is_refused(
    without_flock, tmp_path, capsys
):
    with workdir.lock(tmp_path, heartbeat=0.05) as held:
        held.check()
        with (
            pytest.raises(ConfigError, match=f"process {os.getpid()} on .* trains here"),
            workdir.lock(tmp_path, heartbeat=0.2),
        ):
            pass
        held.check()
    assert (tmp_path / "lock.json").read_text() == ""
    assert "this disk has no locks (Function not implemented)" in capsys.readouterr().out
    with workdir.lock(tmp_path, heartbeat=0.05):
        pass


def test_on_a_disk_without_locks_the_lock_of_a_dead_process_is_taken_over(without_flock, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    me = {"pid": dead.pid, "host": socket.gethostname(), "since": "2026", "token": "t"}
    (tmp_path / "lock.json").write_text(json.dumps(me))
    with workdir.lock(tmp_path, heartbeat=0.05):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()


def test_a_holder_that_was_paused_and_taken_over_must_not_write(tmp_path):
    """It learns so from the lock file, which it then leaves to the next holder."""
    other = json.dumps({"pid": 7, "host": "elsewhere", "since": "2026", "token": "other"})
    with workdir.lock(tmp_path, heartbeat=0.01) as held:
        held.check()
        (tmp_path / "lock.json").write_text(other)
        with pytest.raises(ConfigError, match="process 7 on elsewhere took over"):
            held.check()
        time.sleep(0.05)  # a heartbeat may be on its way
        before = (tmp_path / "lock.json").stat().st_mtime_ns
        time.sleep(0.05)
        assert (tmp_path / "lock.json").stat().st_mtime_ns == before
    assert (tmp_path / "lock.json").read_text() == other


@pytest.mark.parametrize("content", ["", "{}", '{"pid": 3}', "x"])
def test_a_lock_file_that_is_damaged_while_it_is_held_is_still_held(content, tmp_path):
    with workdir.lock(tmp_path) as held:
        (tmp_path / "lock.json").write_text(content)
        held.check()
        (tmp_path / "lock.json").unlink()
        held.check()
