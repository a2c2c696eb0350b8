"""Two processes with two devices each save one checkpoint and agree on the step to restore."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from diffjax import checkpoint
from diffjax.core import digest
from tests.checkpoint.states import POSITION, like, state

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import sys
from pathlib import Path
import jax
index, port, path = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", 2, index)
from jax.experimental import multihost_utils
from diffjax import checkpoint
from diffjax.core import digest
from diffjax.devices import mesh
from tests.checkpoint.states import POSITION, array_files, flip, like, state
target = like(mesh.make_mesh(fsdp=4))
place = jax.jit(lambda tree: tree, out_shardings=jax.tree.map(lambda x: x.sharding, target))
checkpoints = checkpoint.open_dir(path, keep=2)
for step in (1, 2, 3):
    checkpoint.save(checkpoints, step, place(state(step)), POSITION)
checkpoint.finish(checkpoints)
print("steps", checkpoints.all_steps())
multihost_utils.sync_global_devices("saved")
if index == 0:
    flip(array_files(path / "3")[0], position=9)
restored, position = checkpoint.restore(checkpoints, target)
print("step", int(restored.step), "H", digest.digest_of(restored, position))
checkpoint.save(checkpoints, 3, place(state(3)), POSITION)
checkpoint.finish(checkpoints)
print("again", checkpoints.all_steps())
"""


@pytest.mark.slow
def test_two_processes_save_restore_and_replace_steps_together(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(i), port, str(tmp_path)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        said = [child.communicate(timeout=240) for child in children]
    finally:
        for child in children:
            child.kill()
    for (out, errors), child in zip(said, children, strict=True):
        assert child.returncode == 0, errors[-2000:]
        chatter = ("step 3 is corrupt", "[Gloo]")
        assert [x for x in out.splitlines() if not x.startswith(chatter)] == [
            "steps [2, 3]",
            f"step 2 H {digest.digest_of(state(2), POSITION)}",
            "again [2, 3]",
        ]
    assert "step 3 is corrupt, skipped" in said[0][0]
    assert [f.state for f in checkpoint.survey(tmp_path, full=True)] == ["good", "good"]
    restored, position = checkpoint.restore(checkpoint.open_to_read(tmp_path), like())
    assert digest.digest_of(restored, position) == digest.digest_of(state(3), POSITION)
