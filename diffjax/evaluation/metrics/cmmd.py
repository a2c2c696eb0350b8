"""CMMD: the kernel distance between the CLIP embeddings of two sets (Jayasumana et al. 2024)."""

import numpy as np
from jaxtyping import Float

from diffjax.evaluation.metrics.features import (
    Features,
    Others,
    blocks,
    check_widths,
    checked,
    unit,
)

SIGMA, SCALE = 10.0, 1000.0  # of the authors' code


def cmmd(made: Features, real: Others, *, sigma: float = SIGMA, scale: float = SCALE) -> float:
    """scale (mean k(x, x') + mean k(y, y') - 2 mean k(x, y)), k = exp(-|x - y|^2 / (2 sigma^2)).

    x and y are the unit vectors of CLIP's image tower. As in the authors' code, the means go over
    all pairs, also of a picture with itself: so the estimate is biased, and never negative.

    Raises:
      InputError: what `checked`, `check_widths` and `unit` refuse.
    """
    check_widths("made", made.shape[1], "real", real.shape[1])
    x = unit("made", checked("made", made))
    y = unit("real", checked("real", real))
    within = _mean_kernel(x, x, sigma) + _mean_kernel(y, y, sigma)
    return scale * (within - 2 * _mean_kernel(x, y, sigma))


def _mean_kernel(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], sigma: float) -> float:
    """1 + the mean of k - 1, whose digits are not lost although k is nearly 1 everywhere."""
    total = 0.0
    for part in blocks(len(x), len(y)):
        squared = 2 - 2 * (x[part] @ y.T)  # of unit vectors
        total += float(np.expm1(-squared / (2 * sigma**2)).sum())
    return total / (len(x) * len(y))
