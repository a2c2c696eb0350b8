"""The sheet by which training is seen: whose pictures are on it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.devices.mesh import make_mesh
from diffjax.generation.chain import prompt_columns
from diffjax.logs.writer import Log
from diffjax.tasks import sampling
from diffjax.tasks.settings import SampleSettings
from diffjax.training.preview import Preview
from tests import naive

SETTINGS = SampleSettings(num_steps=2, guidance_weight=2.0, threshold="static", aug_level=0.2)
TASKS = [
    dataclasses.replace(one.task, settings=SETTINGS) for one in naive.stages_of(SETTINGS, SETTINGS)
]
TEXT, MASK = naive.prompts(0, rows=3)


def batch_of(side):
    image = np.random.default_rng(1).integers(0, 256, (3, side, side, 3), np.uint8)
    lengths = MASK.sum(1).astype(np.int32)
    return {"image": image, "text": TEXT.astype(jnp.bfloat16), "text_length": lengths}


@pytest.mark.parametrize("task", TASKS, ids=["base", "sr"])
def test_a_preview_is_the_sampling_of_its_rows_each_with_a_seed_of_its_own(task, tmp_path):
    """Row i is told its own text, starts from its own picture made small, and has the seed i."""
    side, shown = task.size_px, []
    batch = batch_of(side)

    @dataclasses.dataclass(frozen=True)
    class Seen:
        """The task; what it makes is kept."""

        def preview(self, params, batch, keys):
            made = task.preview(params, batch, keys)
            jax.debug.callback(lambda x: shown.append(np.asarray(x)), made["made"])
            return made

        def __getattr__(self, name):
            return getattr(task, name)

    register = jax.tree_util.register_static(Seen)()
    log = Log(tmp_path, enabled=False)
    made = Preview(register, make_mesh(), (batch, ("a", "b", "c")), tmp_path, log)
    assert made(7, {}).name == "0000007.png"
    text = batch["text"].astype(np.float32) * MASK[..., None]
    columns = prompt_columns(jnp.asarray(text), jnp.asarray(MASK))
    if side == 8:
        small = naive.resized(batch["image"] / 127.5 - 1, 4)
        columns["low_res"] = jnp.asarray(small, jnp.float32)
    keys = rng.per_example(jnp.arange(3))
    want = sampling.sample({}, columns, keys, task=task, settings=SETTINGS)
    (got,) = shown
    np.testing.assert_allclose(got, want, atol=1e-4)
