"""The sheet by which training is seen: whose pictures are on it, and how large they are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import ImageFont

from diffjax.core import rng
from diffjax.devices.mesh import make_mesh
from diffjax.generation.chain import prompt_columns
from diffjax.images.sheet import contact_sheet, wrap_text
from diffjax.logs.writer import Log
from diffjax.tasks import sampling
from diffjax.tasks.settings import SampleSettings
from diffjax.training.preview import Preview, tile_of
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


@pytest.mark.parametrize("side_px", [4, 8, 12])
def test_a_small_picture_is_enlarged_by_a_whole_number_until_its_caption_fits(side_px):
    tile_px = tile_of(side_px)
    assert tile_px % side_px == 0
    font = ImageFont.load_default(size=max(11, tile_px // 12))
    lines = wrap_text("an openmoji drawing of a woman astronaut", font, tile_px).split("\n")
    assert max(font.getlength(line) for line in lines) <= tile_px
    assert not lines[-1].endswith("...")
    sheet = contact_sheet([[np.zeros((side_px, side_px, 3), np.uint8)]], ["7"], tile_px=tile_px)
    assert sheet.width >= tile_px


@pytest.mark.parametrize(("side_px", "tile_px"), [(16, 32), (64, 128), (256, 256), (1024, 256)])
def test_a_larger_picture_is_shown_at_twice_its_size_up_to_256_px(side_px, tile_px):
    assert tile_of(side_px) == tile_px
