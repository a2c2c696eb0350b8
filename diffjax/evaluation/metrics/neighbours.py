"""How far two sets cover each other, by balls that reach to the k-th nearest neighbour."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffjax.core.errors import InputError
from diffjax.evaluation.metrics.features import Features, Others, blocks, checked_pair

# Squared distances below this share of the squared lengths are rounding: the rows are equal.
EQUAL = 1e-13


class PrecisionRecall(NamedTuple):
    """The shares of made pictures in a ball of a real one, and of real ones in a made one's."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Real balls around a made picture, over k; the share of real balls with a made picture."""

    density: float
    coverage: float


def precision_recall(made: Features, real: Others, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall  (Kynkaanniemi et al. 2019, eq. 1 and 2).

    A ball reaches from a picture to its k-th nearest neighbour in its own set, boundary included.

    Raises:
      InputError: there are no more than k pictures, or what `checked_pair` refuses.
    """
    x, y = _pair(made, real, k)
    return PrecisionRecall(_share_within(x, y, k), _share_within(y, x, k))


def density_coverage(made: Features, real: Others, k: int = 5) -> DensityCoverage:
    """Density and coverage  (Naeem et al. 2020, eq. 4 and 6).

    As in the authors' code, the balls here are without their boundary.

    Raises:
      InputError: there are no more than k pictures, or what `checked_pair` refuses.
    """
    x, y = _pair(made, real, k)
    radii = squared_radii(y, k)
    inside, covered = 0, 0
    for part in blocks(len(y), len(x)):
        near = squared_distances(y[part], x) < radii[part, None]
        inside += int(near.sum())
        covered += int(near.any(axis=1).sum())
    return DensityCoverage(inside / (k * len(x)), covered / len(y))


def squared_radii(x: Float[np.ndarray, "n d"], k: int) -> Float[np.ndarray, " n"]:
    """The squared distance of each row to its k-th nearest other row."""
    found = np.empty(len(x))
    for part in blocks(len(x), len(x)):
        # the nearest row is the row itself
        found[part] = np.partition(squared_distances(x[part], x), k, axis=1)[:, k]
    return found


def squared_distances(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "n m"]:
    """|x_i - y_j|^2 = |x_i|^2 + |y_j|^2 - 2 x_i.y_j; exactly 0 for equal rows."""
    lengths = np.sum(x * x, axis=1)[:, None] + np.sum(y * y, axis=1)
    squared = lengths - 2 * (x @ y.T)
    return np.where(squared > EQUAL * lengths, squared, 0.0)


def _share_within(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], k: int) -> float:
    """The share of rows of x in the ball of some row of y."""
    radii, inside = squared_radii(y, k), 0
    for part in blocks(len(x), len(y)):
        inside += int((squared_distances(x[part], y) <= radii).any(axis=1).sum())
    return inside / len(x)


def _pair(
    made: Features, real: Others, k: int
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """Both sets around the mean of the real one: distances of centred rows lose fewer digits."""
    if k < 1:
        raise InputError(f"k = {k}: want at least 1")
    x, y = checked_pair(made, real, at_least=k + 1)
    centre = y.mean(axis=0)
    return x - centre, y - centre
