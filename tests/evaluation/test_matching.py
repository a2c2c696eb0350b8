"""Zero-shot classification and retrieval, counted from unit vectors."""

import numpy as np
import pytest

from diffjax.evaluation import matching
from diffjax.evaluation.examples import Examples

EYE = np.eye(12)


def test_a_perfect_match_finds_everything_first():
    names = [f"n{i}" for i in range(12)]
    rows = matching.retrieved(EYE, EYE, names)
    assert set(rows) == {"text_in_1", "image_in_1", "text_in_5", "image_in_5", "text_in_10",
                         "image_in_10"}  # fmt: skip
    assert all(hits.all() for hits in rows.values())
    found = matching.classified(EYE, EYE, names, names)
    assert found["top_1"].all()


def test_features_that_tell_nothing_find_nothing_first():
    same = np.ones((12, 3)) / 3**0.5
    rows = matching.retrieved(same, same, [f"n{i}" for i in range(12)])
    assert not rows["text_in_1"].any()
    assert not rows["image_in_5"].any()


def test_the_place_of_the_right_one_counts_those_before_it():
    scores = np.array([[0.1, 0.9, 0.5], [0.1, 0.9, 0.5], [0.7, 0.7, 0.2]])
    places = matching.places(scores, ["a", "b", "a"], ["a", "b", "c"])
    np.testing.assert_array_equal(places, [2, 0, 0.5])


def test_equal_captions_are_one():
    """Two pictures with one caption find it, whichever of the two texts scores higher."""
    text = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    rows = matching.retrieved(text, text, ["x", "x", "y"])
    assert rows["text_in_1"].all()
    assert rows["image_in_1"].all()


def test_a_class_is_the_mean_direction_of_its_texts():
    text = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    classes, names = matching.class_features(text, ["b", "b", "a"])
    assert names == ["a", "b"]
    np.testing.assert_allclose(classes, [[0.0, -1.0], [0.5**0.5, 0.5**0.5]])


def test_nan_features_and_unknown_classes_are_refused():
    bad = EYE.copy()
    bad[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        matching.retrieved(bad, EYE, ["n"] * 12)
    with pytest.raises(ValueError, match="'z' is looked for"):
        matching.classified(EYE[:2], EYE[:2], ["a", "b"], ["a", "z"])


def test_the_score_of_a_preview_counts_names_and_captions():
    names = tuple(f"n{i // 2}" for i in range(12))
    examples = Examples({}, names, tuple(f"c{i}" for i in range(12)))
    made = {"clip_image": EYE, "clip_text": EYE}
    scores = matching.Matching()(made, examples)
    assert scores["top_1"].mean() == 1.0
    assert scores["text_in_1"].dtype == np.float64
    unnamed = matching.Matching()(made, Examples({}, ("",) * 12, examples.captions))
    assert "top_1" not in unnamed


def test_shares_have_wilsons_intervals():
    found = matching.shares({"top_1": np.array([True, False, True, True])})
    assert found["top_1"]["share"] == 0.75
    assert 0 < found["top_1"]["low"] < 0.75 < found["top_1"]["high"] < 1
    assert found["top_1"]["of"] == 4
