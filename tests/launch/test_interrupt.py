"""Ctrl-C in the restart loop leaves the training alone, and asks what shall become of it."""

import contextlib
import os
import pty
import signal
import subprocess
import time

import pytest

from tests.launch.cloud import WHERE, Cloud

TRAINING = """#!/bin/bash
[ "$1" = -c ] && exit 0
trap 'exit 143' TERM
echo $$ >"$STUB/training"
while :; do sleep 0.1; done
"""


def running(cloud):
    try:
        os.kill(int((cloud.folder / "training").read_text()), 0)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return False
    return True


@pytest.mark.parametrize(
    ("answer", "goes_on", "deleted"),
    [(None, True, False), ("s\n", False, False), ("d\n", True, True)],
)
def test_ctrl_c_asks_whether_to_leave_stop_or_delete(answer, goes_on, deleted, tmp_path):
    cloud = Cloud(tmp_path)
    home = cloud.worker()
    (home / "diffjax" / "venv" / "bin" / "python").write_text(TRAINING)
    (home / "diffjax" / "venv" / "bin" / "python").chmod(0o755)
    cloud.program("uv", "#!/bin/sh\n")
    ours, theirs = pty.openpty()
    loop = subprocess.Popen(
        [cloud.root / "launch" / "tpu.sh", "train", *WHERE, "--type", "v6e-8"], env=cloud.env(),
        stdin=theirs if answer else subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # an ignored one stays so
    )  # fmt: skip
    end = time.monotonic() + 300
    while not running(cloud):
        assert time.monotonic() < end
        time.sleep(0.05)
    training = int((cloud.folder / "training").read_text())
    if answer:
        os.write(ours, answer.encode())
    os.killpg(loop.pid, signal.SIGINT)
    out, _ = loop.communicate(timeout=300)
    try:
        assert loop.returncode == 130, out
        assert "goes on without this loop" in out
        assert ("is paid for until" in out) == (not deleted)
        assert cloud.verbs().count("delete") == deleted
        assert running(cloud) == goes_on  # the folder that is deleted here ends no process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(training, signal.SIGKILL)
        os.close(ours)
        os.close(theirs)
