"""Scores of the set that a task makes of all examples, during training."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.evaluation import scores, sets
from diffjax.evaluation.collect import collect
from diffjax.evaluation.examples import Examples
from diffjax.images import pixels
from tests.evaluation import toys

REAL, MADE = toys.pictures(9, seed=1), toys.pictures(9, seed=2)


def examples(pictures, captions=("a",) * 9):
    return Examples({"image": pictures}, ("",) * len(pictures), tuple(captions[: len(pictures)]))


def made(pictures):
    return {"made": np.array(pixels.from_uint8(jnp.asarray(pictures)))}


def test_the_distance_is_that_of_both_sets():
    found = examples(REAL)
    score = scores.distance_to(found, toys.extractor())
    logged = score(made(MADE), found)
    sides = [collect("", [one], toys.extractor()).whole for one in (MADE, REAL)]
    wanted = sets.compare(*sides, "fd_lite0").numbers
    assert logged.keys() == {"fd_lite0", "kid_lite0"}
    for name, value in logged.items():
        assert float(value) == pytest.approx(wanted[name], rel=1e-5)


def test_pictures_that_show_nothing_have_no_number_and_training_goes_on(capsys):
    found = examples(REAL)
    score = scores.distance_to(found, toys.extractor())
    assert score(made(np.full_like(MADE, 7)), found) == {}
    assert "evaluation: no fd_lite0: made: all 9 pictures are the same" in capsys.readouterr().out
    bad = made(MADE)
    bad["made"][3, 0, 0, 0] = np.nan
    assert score(bad, found) == {}
    assert "1 of 1728 numbers are not finite" in capsys.readouterr().out


def test_true_pictures_that_show_nothing_are_refused_at_once():
    with pytest.raises(ValueError, match="real: all 9 pictures are the same"):
        scores.distance_to(examples(np.zeros_like(REAL)), toys.extractor())


def test_captions_are_wanted_by_a_clip(words_clip):
    found = examples(REAL, [f"{'rgb'[i % 3]}{i}" for i in range(9)])
    logged = scores.fit_to(found, words_clip)(made(REAL), found)
    assert logged.keys() == {"clip_score", "r_precision"}
    with pytest.raises(ValueError, match="clip_score: the pictures have no captions"):
        scores.fit_to(examples(REAL, ("",) * 9), words_clip)


@pytest.fixture
def words_clip():
    return toys.Words()
