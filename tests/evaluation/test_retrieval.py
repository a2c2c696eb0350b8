"""Nearest pictures: against loops, and what counts as found."""

import numpy as np
import pytest
from scipy.stats import binomtest

from diffjax.evaluation import retrieval


def test_small_pixels_are_means_of_squares():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 4, 3), dtype=np.uint8)
    rows = retrieval.small_pixels(images, 2)
    want = images[1, 4:8, 2:4, 1].mean() / 255  # the lower right square's green
    assert rows.shape == (2, 12)
    assert rows[1].reshape(2, 2, 3)[1, 1, 1] == pytest.approx(want)
    with pytest.raises(ValueError, match="multiples of 3"):
        retrieval.small_pixels(images, 3)


def test_distances_are_those_of_all_pairs():
    rng = np.random.default_rng(1)
    made, real = rng.normal(size=(5, 7)), rng.normal(size=(4, 7))
    want = [[np.sum((a - b) ** 2) for b in real] for a in made]
    np.testing.assert_allclose(retrieval.distances(made, real), want, atol=1e-12)


def test_the_rank_counts_what_is_nearer_and_not_twins():
    real = np.array([[0.0], [1.0], [1.0], [3.0]])
    made = np.array([[0.9], [2.5], [0.1]])
    assert list(retrieval.ranks(made, real, np.array([2, 2, 3]))) == [0, 1, 3]


def test_found_is_by_name_in_whichever_style():
    real = np.array([[0.0], [1.0], [5.0]])
    names = ["apple", "pear", "apple"]
    made = np.array([[4.0], [0.6], [0.4]])
    assert list(retrieval.found(made, real, names, ["apple", "apple", "apple"])) == [
        True, False, True
    ]  # fmt: skip
    with pytest.raises(ValueError, match="plum"):
        retrieval.found(made, real, names, ["apple", "apple", "plum"])


@pytest.mark.parametrize(("hits", "trials"), [(0, 5), (3, 7), (400, 500), (9, 9)])
def test_the_interval_is_wilsons(hits, trials):
    want = binomtest(hits, trials).proportion_ci(method="wilson")
    assert retrieval.interval(hits, trials) == pytest.approx((want.low, want.high), abs=1e-12)
    with pytest.raises(ValueError, match="6 hits in 5"):
        retrieval.interval(6, 5)


def test_a_twin_that_rounding_brings_nearer_is_not_nearer():
    """Two drawings that are the same may differ in the last digits of their means."""
    made = np.array([[0.25, 0.5]])
    real = np.array([[0.5, 0.5], [0.5 * (1 - 1e-13), 0.5], [0.3, 0.5]])
    wanted = np.array([0])
    assert retrieval.ranks(made, real, wanted).tolist() == [1]
    assert retrieval.ranks(made, real[:2], wanted).tolist() == [0]
    names = ["apple", "pear"]
    assert retrieval.found(made, real[:2], names, ["apple"]).tolist() == [True]
