"""Measures how latents are spread, so that diffusion sees them with variance 1."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from diffjax.models.autoencoder.network import LOG_VARIANCE


class Spread(NamedTuple):
    """The mean and the standard deviation of latents that are drawn from moments, by channel."""

    mean: Float[np.ndarray, " z"]
    std: Float[np.ndarray, " z"]
    pictures: int

    def over_all(self) -> tuple[float, float]:
        """(mean, standard deviation) over all channels together."""
        mean = float(self.mean.mean())
        square = float(np.mean(self.std**2 + (self.mean - mean) ** 2))
        return mean, square**0.5


def measure(moments: Iterable[Shaped[np.ndarray, "h w m"]], channels: int) -> Spread:
    """Var z = E[variance] + Var[mean], over all places of all pictures.

    moments: the means, then the log variances if there are twice as many channels.
    """
    count = 0
    sums, squares = np.zeros(channels), np.zeros(channels)
    for one in moments:
        rows = one.reshape(-1, one.shape[-1]).astype(np.float64)
        mean, rest = rows[:, :channels], rows[:, channels:]
        variance = np.exp(np.clip(rest, *LOG_VARIANCE)).mean(axis=0) if rest.size else 0.0
        sums += mean.mean(axis=0)
        squares += (mean**2).mean(axis=0) + variance
        count += 1
    mean = sums / max(count, 1)
    return Spread(mean, np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0.0)), count)
