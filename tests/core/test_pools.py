"""Worker processes end with the process that started them, however it ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests import runs

PARENT = """
import os, sys, time
from diffjax.core import pools

def work(number):
    if number:
        os.write(1, f"{os.getpid()}\\n".encode())
    time.sleep(600 * number)

if __name__ == "__main__":
    with pools.pool(2) as processes:
        list(processes.map(work, [1, 1, 1]))
"""


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_pool_whose_parent_is_ended_leaves_no_worker_that_holds_its_output_open(how, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environ = {**os.environ, "PYTHONPATH": str(runs.ROOT)}
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environ
    )
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    assert all(map(lives, workers))
    parent.send_signal(how)
    parent.communicate(timeout=60)  # waits until nobody holds the output open
    end = time.monotonic() + 60
    while any(map(lives, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(lives, workers))
