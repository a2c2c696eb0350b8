"""The drift of colours against numpy's means and deviations of all pixels."""

import numpy as np
import pytest

from diffjax.evaluation.metrics.drift import CHANNELS, NO_COLOURS, colours_of, drift

MADE, REAL = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 6, 3), dtype=np.uint8)


def test_the_drift_is_the_difference_of_means_and_of_deviations():
    found = drift(colours_of(MADE), colours_of(REAL))
    for channel, name in enumerate(CHANNELS):
        a, b = (x[..., channel].astype(np.float64) for x in (MADE, REAL))
        assert found[f"drift_{name}"] == pytest.approx(a.mean() - b.mean(), abs=1e-9)
        assert found[f"drift_std_{name}"] == pytest.approx(a.std() - b.std(), abs=1e-9)


def test_a_lighter_set_drifts_by_as_many_levels():
    dark = MADE // 2
    found = drift(colours_of(dark + 7), colours_of(dark))
    assert [found[f"drift_{name}"] for name in CHANNELS] == pytest.approx([7.0] * 3)
    assert [found[f"drift_std_{name}"] for name in CHANNELS] == pytest.approx([0.0] * 3, abs=1e-9)


def test_sums_of_parts_are_those_of_the_whole():
    parts = [colours_of(MADE[3:]), colours_of(MADE[:3]), NO_COLOURS]
    assert parts[0] + parts[1] + parts[2] == colours_of(MADE)


def test_a_set_of_one_colour_has_no_deviation():
    assert colours_of(np.full((3, 2, 2, 3), 201, np.uint8)).deviation().tolist() == [0.0] * 3


def test_nothing_has_no_drift():
    with pytest.raises(ValueError, match="72 made and 0 real pixels"):
        drift(colours_of(MADE[:3]), NO_COLOURS)
