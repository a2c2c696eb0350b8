"""What edits are written under, and what their files say, whatever the pictures are."""

import dataclasses
import hashlib

import numpy as np
import pytest

from diffjax.core.errors import ConfigError
from diffjax.editing import request
from diffjax.editing.request import Ask, Place
from diffjax.images import png
from tests import tiny_cascade

GIVEN = np.random.default_rng(0).integers(0, 256, (20, 16, 3), np.uint8)
MASK = np.zeros((20, 16), bool)
MASK[6:12, 5:12] = True


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    return tiny_cascade.cascade(tmp_path_factory.mktemp("t5"))


@pytest.fixture
def made(cascade, tmp_path, monkeypatch):
    """made(ask, write=..., **more) -> {file: (pixels, metadata)}; each seed has a grey of its own.

    `asked` holds what the edit was handed.
    """
    asked = []

    def edited(trained, todo, edit, ask):
        asked.append((todo, edit))
        for job in todo:
            sides = [stage.task.size_px for stage in trained.stages]
            yield [np.full((px, px, 3), 10 * job.seed, np.uint8) for px in sides]

    monkeypatch.setattr(request, "edited", edited)

    def run(ask, write=request.write_redrawn, **more):
        write(cascade, ask, Place(tmp_path, overwrite=True), **more)
        paths = sorted(tmp_path.glob("*.png"))
        return {one.name: (png.read(one), png.read_metadata(one)) for one in paths}

    run.asked = asked
    return run


def test_each_seed_is_a_picture_of_every_stage_and_none_is_made_twice(made):
    ask = Ask("vary", [GIVEN], (), [3, 0, 3], strength=0.25, fit="pad")
    files = made(ask)
    names = [f"vary_seed{seed}_{px}px.png" for seed in (0, 3) for px in (16, 8)]
    assert list(files) == ["vary_grid.png", *names]
    ((todo, edit),) = made.asked
    assert [job.seed for job in todo] == [3, 0]
    assert edit.keywords["strength"] == 0.25
    for seed in (0, 3):
        picture, said = files[f"vary_seed{seed}_16px.png"]
        assert (picture == 10 * seed).all()
        assert (said["kind"], said["prompt"], said["seed"]) == ("vary", "", seed)
        assert [stage["size_px"] for stage in said["stages"]] == [8, 16]
        assert said["edit"] == {
            "strength": 0.25, "pictures": [request.sha256(GIVEN)], "fit": "pad", "prompted": False,
        }  # fmt: skip
    assert [s["size_px"] for s in files["vary_seed3_8px.png"][1]["stages"]] == [8]


def test_a_mask_goes_with_its_picture_and_its_digest_into_the_file(made):
    ask = Ask("inpaint", [GIVEN], ("x", "y"), [1], mask=MASK, negative="z")
    files = made(ask, resample=(4, 2))
    ((todo, edit),) = made.asked
    assert [(job.prompt, job.negative) for job in todo] == [("x", "z"), ("y", "z")]
    assert edit.keywords["resample"] == (4, 2)
    said = files["inpaint_seed1_16px.png"][1]
    assert said["edit"]["resample"] == [4, 2]
    assert said["edit"]["mask"] == request.sha256(MASK)
    assert said["edit"]["prompted"]
    sheet = files["inpaint_grid.png"][0]
    assert (sheet == request.HIDDEN).all(axis=-1).any()  # what was hidden shows on the sheet


def test_a_digest_is_of_the_shape_and_the_bytes():
    want = hashlib.sha256(b"(20, 16, 3)" + GIVEN.tobytes()).hexdigest()
    assert request.sha256(GIVEN) == want
    assert request.sha256(GIVEN.reshape(16, 20, 3)) != want


def test_a_picture_of_the_most_pixels_is_enlarged_and_one_more_is_refused(made, monkeypatch):
    ask = Ask("upscale", [GIVEN], (), [2, 2])
    monkeypatch.setattr(request, "MAX_UPSCALED_PIXELS", 20 * 16 * 4)
    assert list(made(ask, request.write_upscaled)) == ["upscale_seed2_32x40px.png"]
    monkeypatch.setattr(request, "MAX_UPSCALED_PIXELS", 20 * 16 * 4 - 1)
    with pytest.raises(ConfigError, match="2 times as large is more than"):
        made(ask, request.write_upscaled)


def test_stages_after_each_other_enlarge_by_their_product(made, cascade):
    """And a factor of fewer stages uses those alone."""
    second = cascade.stages[1]
    third = dataclasses.replace(second, task=dataclasses.replace(second.task, name="third"))
    longer = dataclasses.replace(
        cascade, stages=(*cascade.stages, third), origins=(*cascade.origins, cascade.origins[1])
    )
    ask = Ask("upscale", [GIVEN], (), [1])

    def write(_, ask, where, factor):
        return request.write_upscaled(longer, ask, where, factor)

    assert list(made(ask, write, factor=2)) == ["upscale_seed1_32x40px.png"]
    assert list(made(ask, write, factor=4)) == [
        "upscale_seed1_32x40px.png", "upscale_seed1_64x80px.png",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"--factor = 3: allowed: 2, 4"):
        made(ask, write, factor=3)
