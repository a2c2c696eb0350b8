"""The picture of the losses by noise level."""

import numpy as np
import pytest

from diffjax.evaluation import plot


def test_the_lines_of_a_report_lie_at_the_middles_of_their_bins():
    numbers = {"loss": 0.3, "loss_logsnr_-12_-8": 0.1, "loss_logsnr_0_4": 0.7,
               "loss_logsnr_4_8": None, "loss_logsnr_-8_-4": float("inf"),
               "loss_logsnr_-4_0": 0.0}  # fmt: skip
    stages = [{"name": "a", "numbers": numbers}, {"name": "b", "numbers": {"loss": 1.0}}]
    assert plot.curves_of(stages) == {"a": [(-10.0, 0.1), (2.0, 0.7)]}
    assert plot.curves_of(None) == {}


def test_each_stage_has_a_line_of_its_colour_that_passes_its_points():
    curves = {"a": [(-10.0, 0.01), (10.0, 1.0)], "b": [(-10.0, 1.0), (10.0, 0.01)]}
    picture = plot.draw(curves)
    height, _, _ = picture.shape
    where = lambda colour: np.argwhere((picture == colour).all(-1))  # noqa: E731
    area = slice(plot.TOP_PX + 10, height - plot.BOTTOM_PX)
    inside = [where(colour)[np.isin(where(colour)[:, 0], range(*area.indices(height)))]
              for colour in plot.COLOURS[:2]]  # fmt: skip
    # one rises and the other falls: rows count from the top
    slopes = [np.polyfit(points[:, 1], points[:, 0], 1)[0] for points in inside]
    assert slopes[0] < -0.2
    assert slopes[1] > 0.2
    assert not len(where(plot.COLOURS[2]))


def test_equal_ratios_are_equally_far_apart():
    """1, 10 and 100 lie on one straight line."""
    picture = plot.draw({"a": [(-10.0, 1.0), (0.0, 10.0), (10.0, 100.0)]})
    points = np.argwhere((picture == plot.COLOURS[0]).all(-1))
    points = points[points[:, 0] > plot.TOP_PX - 5]
    line = np.polynomial.Polynomial.fit(points[:, 1], points[:, 0], 1)
    assert np.abs(line(points[:, 1]) - points[:, 0]).max() < 6
    assert np.ptp(points[:, 0]) > 200


@pytest.mark.parametrize(
    ("values", "ends"),
    [([0.3], (-1, 0)), ([1.0, 5.0], (0, 1)), ([1.0], (0, 1)), ([0.02, 700.0], (-2, 3))],
)
def test_an_axis_ends_at_powers_of_ten(values, ends):
    assert plot.decades(values) == ends
