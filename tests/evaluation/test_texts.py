"""How well pictures fit their captions, from vectors alone."""

import numpy as np
import pytest

from diffjax.evaluation import texts
from diffjax.evaluation.metrics import clip_score

IMAGE, TEXT = np.random.default_rng(0).normal(size=(2, 5, 4))
CAPTIONS = ("a", "b", "c", "d", "e")


def test_scores_are_means_over_the_pictures():
    found = texts.fit(IMAGE, TEXT, CAPTIONS, real=TEXT)
    assert found.numbers["clip_score"] == pytest.approx(clip_score.clip_score(IMAGE, TEXT).mean())
    assert found.numbers["clip_score_real"] == pytest.approx(100.0)
    wanted = clip_score.r_precision(IMAGE, TEXT, CAPTIONS, distractors=4).mean()
    assert found.numbers["r_precision"] == pytest.approx(wanted)
    assert found.numbers["r_precision_of"] == 5.0


def test_without_captions_there_are_no_scores():
    found = texts.fit(IMAGE, None, ("",) * 5)
    assert found.numbers == {}
    assert found.left_out == dict.fromkeys(("clip_score", "r_precision"), texts.NO_CAPTIONS)


def test_of_equal_captions_none_can_be_the_best():
    found = texts.fit(IMAGE, TEXT, ("a",) * 5)
    assert "clip_score" in found.numbers
    assert found.left_out == {"r_precision": "all captions are the same"}
