"""The kernel distance of Binkowski et al. 2018, with the choices of torch-fidelity."""

import numpy as np
from jaxtyping import Float

from diffjax.core.errors import InputError
from diffjax.evaluation.metrics.features import Features, Others, Spread, checked_pair

SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 2020  # torch-fidelity's


def kid(
    made: Features,
    real: Others,
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = SEED,
) -> Spread:
    """The squared MMD under the kernel (x.y / d + 1)^3, averaged over random subsets.

    Each of the `subsets` has `subset_size` pictures of each set, drawn without repetition. It is an
    unbiased estimate and may be slightly negative. It is a KID only of Inception's features. The
    subsets are drawn as torch-fidelity draws them, so equal features give equal numbers.

    Raises:
      InputError: a set is smaller than a subset, or what `checked_pair` refuses.
    """
    smaller = min(len(made), len(real))
    if subsets < 1 or not 2 <= subset_size <= smaller:
        raise InputError(
            f"subset_size = {subset_size}, subsets = {subsets}: want at least 1 subset of 2 to "
            f"{smaller} pictures, the smaller set's: add pictures or lower subset_size"
        )
    x, y = checked_pair(made, real)
    draw = np.random.RandomState(seed)
    values = np.empty(subsets)
    for i in range(subsets):
        part_x = x[draw.choice(len(x), subset_size, replace=False)]
        part_y = y[draw.choice(len(y), subset_size, replace=False)]
        values[i] = squared_mmd(part_x, part_y)
    return Spread(float(values.mean()), float(values.std()))


def squared_mmd(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j): unbiased.

    (Gretton et al. 2012, eq. 3.)
    """
    between = float(_kernel(x, y).mean())
    return _mean_of_pairs(x) + _mean_of_pairs(y) - 2 * between


def _kernel(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_of_pairs(x: Float[np.ndarray, "n d"]) -> float:
    values = _kernel(x, x)
    return float((values.sum() - np.trace(values)) / (len(x) * (len(x) - 1)))
