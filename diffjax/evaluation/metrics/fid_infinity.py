"""The Frechet distance as it would be with infinitely many pictures."""

from typing import NamedTuple

import numpy as np

from diffjax.core.errors import InputError
from diffjax.evaluation import fid
from diffjax.evaluation.metrics.features import Features, checked
from diffjax.evaluation.metrics.moments import Moments, moments_of

POINTS, SMALLEST = 15, 5000  # of the authors' code


class Extrapolated(NamedTuple):
    """The limit, the slope of the distance over 1 / N, and the deviation from that line."""

    value: float
    slope: float
    residual: float


def fid_infinity(
    made: Features, real: Moments, *, points: int = POINTS, smallest: int = SMALLEST, seed: int = 0
) -> Extrapolated:
    """The value at 1/N = 0 of the line through the distances of N pictures  (Chong & Forsyth 2020).

    The bias of the distance is nearly linear in 1 / N. It is computed for `points` random subsets
    of `smallest` to all pictures, whose sizes are equally far apart, and the line is that of least
    squares. `real` stays as it is.

    Raises:
      InputError: there are too few pictures, or what `fid.distance` refuses.
    """
    exact = checked("made", made)
    if points < 2 or not made.shape[1] < smallest < len(made):
        raise InputError(
            f"made: {len(made)} pictures, points = {points}, smallest = {smallest}: want 2 or more "
            f"points, and smallest above the {made.shape[1]} features and below the pictures"
        )
    draw = np.random.default_rng(seed)
    sizes = np.linspace(smallest, len(made), points).astype(int)
    parts = [exact[draw.permutation(len(exact))[:size]] for size in sizes]
    distances = np.array([fid.distance(moments_of(part), real) for part in parts])
    return line(1.0 / sizes, distances)


def line(x: np.ndarray, y: np.ndarray) -> Extrapolated:
    """The line of least squares: its value at 0, its slope, and the points' deviation from it."""
    away = x - x.mean()
    slope = float(away @ y / (away @ away))
    value = float(y.mean() - slope * x.mean())
    residual = float(np.sqrt(np.mean(np.square(y - value - slope * x))))
    return Extrapolated(value, slope, residual)
