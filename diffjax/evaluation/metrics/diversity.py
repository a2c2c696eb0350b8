"""How different the pictures are that several seeds give for one prompt."""

import numpy as np
from jaxtyping import Float

from diffjax.core.errors import InputError
from diffjax.evaluation.metrics.features import unit


def diversity(features: Float[np.ndarray, "p s d"]) -> Float[np.ndarray, " p"]:
    """For each prompt, the mean of 1 - cos(x_i, x_j) over all pairs of its s pictures.

    0: all its pictures are the same. 1: their features have nothing in common. The sum over pairs
    follows from the length of the sum of the unit vectors, without computing each cosine.

    Raises:
      InputError: there are fewer than two seeds, or what `unit` refuses.
    """
    prompts, seeds, width = features.shape
    if seeds < 2 or not prompts:
        raise InputError(f"{prompts} prompts with {seeds} seeds each: want at least 2 seeds")
    rows = unit("features", features.reshape(-1, width)).reshape(features.shape)
    together = rows.sum(axis=1)
    cosines = np.sum(together * together, axis=1) - seeds
    return 1.0 - cosines / (seeds * (seeds - 1))
