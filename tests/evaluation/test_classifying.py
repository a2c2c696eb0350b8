"""How well confidences agree with the shares of right answers."""

import numpy as np
import pytest

from diffjax.evaluation.classifying import Calibration, calibration_error
from diffjax.evaluation.examples import Examples
from diffjax.tasks.classifying import CONFIDENCE, RIGHT


def test_the_calibration_error_is_that_of_a_worked_example():
    """Two bins: 0.5 sure of three answers and right once, 1.0 sure of one and right."""
    confidence, right = np.array([0.5, 0.5, 0.5, 1.0]), np.array([True, False, False, True])
    assert calibration_error(confidence, right, 2) == pytest.approx(3 / 4 * (0.5 - 1 / 3))


def test_errors_of_one_bin_cancel_and_those_of_two_do_not():
    confidence, right = np.array([0.55, 0.85]), np.array([True, False])
    assert calibration_error(confidence, right, 1) == pytest.approx(0.2)
    assert calibration_error(confidence, right, 4) == pytest.approx((0.45 + 0.85) / 2)


def test_answers_that_are_as_often_right_as_they_are_sure_have_no_error():
    confidence = np.repeat([0.25, 0.5, 0.75], 4)
    right = np.arange(12) % 4 < np.repeat([1, 2, 3], 4)
    assert calibration_error(confidence, right) == pytest.approx(0.0)


def test_levels_that_the_schedule_does_not_reach_have_no_numbers():
    nan = np.nan
    sure = np.array([[nan, 0.5, 1.0, 1.0, 1.0, nan], [nan, 0.5, 1.0, 1.0, nan, nan]])
    right = np.where(np.isnan(sure), nan, [[1.0] * 6, [0.0] * 6])
    found = Calibration()({CONFIDENCE: sure, RIGHT: right}, Examples({}, (), ()))
    assert set(found) == {
        f"{name}_logsnr_{at}"
        for name in ("right", "calibration_error")
        for at in ("-8_-4", "-4_0", "0_4", "4_8")
    }
    assert found["calibration_error_logsnr_-8_-4"] == pytest.approx(0.0)
    assert found["calibration_error_logsnr_-4_0"] == pytest.approx(0.5)
    assert found["calibration_error_logsnr_4_8"] == pytest.approx(0.0)
