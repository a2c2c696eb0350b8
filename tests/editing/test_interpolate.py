"""Which frames a film is made of, and in which order they are shown."""

import numpy as np
import pytest

from diffjax.editing import interpolate
from diffjax.editing.request import Ask, Place
from diffjax.images import png
from tests import tiny_cascade

PROMPTS = ("a", "b", "c")


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    return tiny_cascade.cascade(tmp_path_factory.mktemp("t5"))


@pytest.fixture
def film(cascade, tmp_path, monkeypatch):
    """film(**reel) -> (the grey of each frame, how the film is written).

    Along leg k the pictures go from grey 20 + 60 k to 80 + 60 k.
    """
    told = {}

    def leg_of(trained, ask, seeds, leg):
        def walk(weights, num_stages):
            for weight in weights:
                grey = round(20 + 60 * (leg + float(weight)))
                yield [np.full((px, px, 3), grey, np.uint8) for px in (8, 16)][:num_stages]

        return walk

    def write(stem, frames, **how):
        told.update(how, frames=[int(frame[0, 0, 0]) for frame in frames])
        return [stem.with_suffix(".webp")]

    monkeypatch.setattr(interpolate, "leg_of", leg_of)
    monkeypatch.setattr(interpolate.film, "write", write)

    def make(**reel):
        ask, where = Ask("interpolate", [], PROMPTS, [3]), Place(tmp_path / "out", overwrite=True)
        how = interpolate.Reel(**{"frames": 4, "ms": 50, **reel})
        interpolate.write_film(cascade, ask, where, how)
        return told

    return make


def test_where_one_leg_ends_the_next_begins_and_no_frame_comes_twice(film):
    made = film()
    assert made["frames"] == [20, 40, 60, 80, 100, 120, 140]
    assert (made["ms"], made["hold_ms"]) == (50, interpolate.HOLD_MS)
    assert made["metadata"]["prompt"] == "a"


def test_a_film_that_goes_back_shows_neither_end_twice_and_never_waits(film):
    made = film(bounce=True)
    there = [20, 40, 60, 80, 100, 120, 140]
    assert made["frames"] == [*there, *there[-2:0:-1]]
    assert (made["ms"], made["hold_ms"]) == (50, 50)


def test_every_frame_is_written_too_if_asked_for(film, tmp_path):
    film(png=True)
    stills = sorted((tmp_path / "out").glob("interpolate_*_16px.png"))
    assert [int(png.read(path)[0, 0, 0]) for path in stills] == film(frames=4)["frames"]


def test_pictures_that_change_evenly_with_the_weight_keep_their_weights(film):
    """The pace by pictures changes nothing where they go as the weights do."""
    assert film(even=True)["frames"] == film(even=False)["frames"]
