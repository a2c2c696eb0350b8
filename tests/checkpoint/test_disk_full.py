"""Saving to a disk of a few megabytes that fills up, if the system lets us mount one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILL = """
import sys
from pathlib import Path
from diffjax import checkpoint
from diffjax.core.files import StorageError
from diffjax.checkpoint import saving
from tests.checkpoint.states import POSITION, fill, like, state
path = Path(sys.argv[1]) / "checkpoints"
fill(path, 1)
saving.free_bytes = lambda path: 1 << 40  # so that orbax itself meets the full disk
big = state(2, size=1 << 16)
checkpoints = checkpoint.open_dir(path)
(path.parent / "ballast").write_bytes(bytes(3 << 20))
for _ in range(2):
    try:
        checkpoint.save(checkpoints, 2, big, POSITION)
        checkpoint.finish(checkpoints)
        raise SystemExit("the disk took more than it holds")
    except StorageError as error:
        print(error)
    assert sorted(p.name for p in path.iterdir()) == ["1", "run.json"], list(path.iterdir())
(path.parent / "ballast").unlink()
checkpoint.save(checkpoints, 2, state(2), POSITION)
checkpoint.finish(checkpoints)
print([f.state for f in checkpoint.survey(path, full=True)])
"""


@pytest.mark.slow
def test_a_full_disk_leaves_the_older_step_and_the_next_save_works_with_room(tmp_path):
    unshare = shutil.which("unshare")
    mount = f"mount -t tmpfs -o size=6m tmpfs {tmp_path}"
    if not unshare or subprocess.run([unshare, "-Urm", "sh", "-c", mount]).returncode:
        pytest.skip("this system does not allow mounting")
    done = subprocess.run(
        [unshare, "-Urm", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", FILL,
         str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *errors, states = done.stdout.splitlines()
    assert len(errors) == 2
    assert all("step 2 was not saved" in e and "free" in e and "needed" in e for e in errors)
    assert states == "['good', 'good']"
