"""kill -9 during saves: complete steps stay complete, and the next process resumes."""

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffjax import checkpoint
from diffjax.core import digest
from tests.checkpoint.states import POSITION, like, state

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import sys, time
from pathlib import Path
from diffjax import checkpoint
from diffjax.checkpoint import manifest
from tests.checkpoint.states import POSITION, like, state
write = manifest.write
manifest.write = lambda *of: (time.sleep(0.1), write(*of), time.sleep(0.1))
checkpoints = checkpoint.open_dir(Path(sys.argv[1]), keep=2)
try:
    step = int(checkpoint.restore(checkpoints, like(size=4096))[0].step)
except FileNotFoundError:
    step = 0
print("from", step, flush=True)
while True:
    step += 1
    checkpoint.save(checkpoints, step, state(step, size=4096), POSITION)
    print("saving", step, flush=True)
"""


@pytest.mark.slow
def test_the_newest_step_is_complete_after_each_of_ten_kills_during_saves(tmp_path):
    """Writing the manifest is delayed, so that kills come before, during and after it."""
    r, reached = random.Random(0), 0
    for _ in range(10):
        child = subprocess.Popen(
            [sys.executable, "-u", "-c", CHILD, str(tmp_path)], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        begun = int(re.fullmatch(r"from (\d+)\n", child.stdout.readline()).group(1))
        assert begun == reached
        for _ in range(3):
            saving = int(child.stdout.readline().split()[1])
        time.sleep(r.uniform(0, 0.6))
        child.kill()
        rest, _ = child.communicate()
        saving = max([saving, *map(int, re.findall(r"saving (\d+)\n", rest))])
        found = checkpoint.open_to_read(tmp_path)
        reached = int(checkpoint.choose(found).name)
        assert reached >= saving - 1 > begun  # a save waits for the previous one
        restored, position = checkpoint.restore(found, like(size=4096))
        want = digest.digest_of(state(reached, size=4096), POSITION)
        assert digest.digest_of(restored, position) == want
