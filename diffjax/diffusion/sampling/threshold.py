"""Keeping x_0_hat inside the data's range, [-1, 1], as combinators: Denoiser -> Denoiser."""

import math

import jax.numpy as jnp

from diffjax.core.types import Data, Denoised, Denoiser, Factor, LogSnr
from diffjax.diffusion.predict import with_x_0, x_0_of
from diffjax.diffusion.process import per_example


def static_threshold(denoise: Denoiser) -> Denoiser:
    """Clip x_0_hat to [-1, 1]  (Imagen 2.3). A learned variance passes through."""

    def thresholded(x_t: Data, logsnr_t: LogSnr) -> Denoised:
        guess = denoise(x_t, logsnr_t)
        return with_x_0(guess, jnp.clip(x_0_of(guess), -1.0, 1.0))

    return thresholded


def dynamic_threshold(denoise: Denoiser, percentile: float = 99.5) -> Denoiser:
    """Clip x_0_hat to [-s, s] and divide by s, s = max(1, percentile of |x_0_hat|)  (Imagen 2.3).

    One s per example, of any shape; percentile in percent, interpolated between ranks. The identity
    inside [-1, 1]. A learned variance passes through.

    Raises:
      ValueError: percentile not above 0 and at most 100.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile={percentile}: in percent, above 0 and at most 100")

    def thresholded(x_t: Data, logsnr_t: LogSnr) -> Denoised:
        guess = denoise(x_t, logsnr_t)
        x_0_hat = x_0_of(guess)
        s = jnp.maximum(_percentile(jnp.abs(x_0_hat), percentile), 1.0)
        return with_x_0(guess, jnp.clip(x_0_hat, -s, s) / s)

    return thresholded


def _percentile(x: Data, percentile: float) -> Factor:
    """NumPy's percentile of each example: linear between the two ranks beside it.

    The rank is a Python number, so that it keeps its digits whatever the size of the example.
    """
    ordered = jnp.sort(x.reshape(len(x), -1), axis=1)
    last = ordered.shape[1] - 1
    rank = percentile / 100 * last
    low = math.floor(rank)
    below, above = ordered[:, low], ordered[:, min(low + 1, last)]
    return per_example(below + (rank - low) * (above - below), x)
