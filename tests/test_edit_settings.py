"""How the stages are sampled for each kind of edit, where the flags leave it open."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from diffjax import edit
from tests import stand as stand_lib
from tests import tiny_cascade
from tests.stand import Stand


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    """Two stages that differ in all that an edit may leave as it is."""
    made = tiny_cascade.cascade(tmp_path_factory.mktemp("t5"), noise=0.25)
    first, second = (stage.settings for stage in made.stages)
    second = dataclasses.replace(second, guidance_weight=2.0, num_steps=7, noise=0.5)
    return made.with_settings([first, second])


OWN = {"guidance_weight": [3.0, 2.0], "num_steps": [2, 7], "sampler": ["ddpm"] * 2}
PLAIN = {**OWN, "guidance_weight": [1.0, 1.0]}
PATH = {"guidance_weight": [1.0] * 2, "num_steps": [32] * 2, "sampler": ["ddim"] * 2,
        "noise": [0.0] * 2, "threshold": ["static"] * 2}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "want"),
    [
        ("inpaint --picture {f}/a.png --mask {f}/m.png --prompt x", OWN),
        ("img2img --picture {f}/a.png --prompt x", OWN),
        ("vary --picture {f}/a.png", PLAIN),
        ("vary --picture {f}/a.png --prompt x", PLAIN),
        ("vary --picture {f}/a.png --prompt x --guidance 4", {"guidance_weight": [4.0, 4.0]}),
        ("upscale --picture {f}/a.png", PLAIN),
        ("upscale --picture {f}/a.png --prompt x", OWN),
        ("interpolate --prompt x --prompt y", OWN),
        ("interpolate --prompt x --prompt y --seeds 1,2",
         {**OWN, "sampler": ["ddim", "ddpm"], "noise": [0.0, 0.5]}),
        ("interpolate --picture {f}/a.png --picture {f}/a.png", PATH),
        ("interpolate --picture {f}/a.png --picture {f}/a.png --steps 9",
         {**PATH, "num_steps": [9, 9]}),
    ],
)  # fmt: skip
def test_an_edit_is_sampled_as_the_stages_are_but_for_what_it_wants(
    line, want, cascade, tmp_path, monkeypatch
):
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save(tmp_path / "m.png")
    used, stand = [], Stand(monkeypatch)
    stand_lib.of_edit(stand, cascade)
    with_settings = type(cascade).with_settings
    monkeypatch.setattr(
        type(cascade),
        "with_settings",
        lambda self, new: used.extend(new) or with_settings(self, new),
    )
    assert edit.main([*line.format(f=tmp_path).split(), "--out", str(tmp_path / "out")]) == 0
    for name, values in want.items():
        assert [getattr(one, name) for one in used] == values, name
