"""Offset noise: noise that also moves the mean of a channel, so that a network learns it."""

import jax

from diffjax.core.types import Data, PRNGKey


def offset_noise(eps: Data, key: PRNGKey, strength: float) -> Data:
    """eps + strength eta, with eta ~ N(0, 1) one number per example and channel (Guttenberg 2023).

    Where noise is independent from pixel to pixel, the mean of a channel is known almost without
    noise at levels where all else is lost. So a network never has to decide it, and samples are of
    medium brightness. The variance of a pixel becomes 1 + strength^2; sampling starts from plain
    noise as before. Channels are the last axis.
    """
    shape = (len(eps), *(1,) * (eps.ndim - 2), eps.shape[-1])
    return eps + strength * jax.random.normal(key, shape)
