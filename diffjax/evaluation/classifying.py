"""Scores of a classifier of noised pictures: right answers and calibration by noise level."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from diffjax.evaluation.examples import Examples
from diffjax.evaluation.measure import Scores
from diffjax.tasks.classifying import CONFIDENCE, RIGHT, names_of

BINS = 15  # of confidence (Guo et al. 2017, sec. 2)


@dataclass(frozen=True)
class Calibration:
    """The share of right answers at each noise level, and how far confidences are from it."""

    bins: int = BINS

    def __call__(self, made: Mapping[str, np.ndarray], examples: Examples) -> Scores:
        """`right_logsnr_LOW_HIGH`, and `calibration_error_logsnr_LOW_HIGH` of the whole set."""
        found: dict[str, Float[np.ndarray, ...]] = {}
        names = zip(names_of(RIGHT), names_of("calibration_error"), strict=True)
        for i, (share, error) in enumerate(names):
            sure, right = (made[name][:, i].astype(np.float64) for name in (CONFIDENCE, RIGHT))
            there = ~np.isnan(sure)
            if there.any():
                found[share] = right
                found[error] = np.asarray(
                    calibration_error(sure[there], right[there] > 0, self.bins)
                )
        return found


def calibration_error(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], bins: int = BINS
) -> float:
    """sum_m (n_m / n) |mean right - mean confidence| over bins m of confidence.

    The expected calibration error (Guo et al. 2017, eq. 5); bins of equal width, (a, b].
    """
    place = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(int) - 1, 0, bins - 1)
    away = np.bincount(place, right - confidence, minlength=bins)
    return float(np.sum(np.abs(away)) / len(confidence))
