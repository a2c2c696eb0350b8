"""Guidance and thresholding as combinators: Denoiser -> Denoiser."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.diffusion.predict import with_x_0, x_0_of
from diffjax.types import Denoised, Denoiser, Image, LogSnr

Weight = float | Float[Array, ""]


def classifier_free(conditional: Denoiser, unconditional: Denoiser, weight: Weight) -> Denoiser:
    """w x_0(x_t, c) + (1 - w) x_0(x_t)  (Ho & Salimans 2022; Imagen eq. 2): w = 1 is off.

    The same combination of eps or of v, since both are affine in x_0 at fixed x_t. A weight
    that is the Python number 1 never calls `unconditional`.
    """
    if isinstance(weight, int | float) and weight == 1:
        return conditional

    def denoise(x_t: Image, logsnr_t: LogSnr) -> Denoised:
        return _combine(conditional(x_t, logsnr_t), unconditional(x_t, logsnr_t), weight)

    return denoise


def classifier_free_doubled(denoise_both: Denoiser, weight: Weight) -> Denoiser:
    """`classifier_free` from one call: rows [0, b) of `denoise_both` see the prompt, [b, 2b) none.

    Both halves get the same x_t, so whatever else conditions the network must be doubled too.
    """

    def denoise(x_t: Image, logsnr_t: LogSnr) -> Denoised:
        twice = denoise_both(jnp.concatenate([x_t, x_t]), jnp.concatenate([logsnr_t, logsnr_t]))
        b = x_t.shape[0]
        conditional, unconditional = (
            jax.tree.map(lambda x, h=h: x[h], twice) for h in (slice(b), slice(b, None))
        )
        return _combine(conditional, unconditional, weight)

    return denoise


def _combine(conditional: Denoised, unconditional: Denoised, weight: Weight) -> Denoised:
    """A learned variance is the conditional's own: extrapolating it means nothing."""
    guided = weight * x_0_of(conditional) + (1.0 - weight) * x_0_of(unconditional)
    return with_x_0(conditional, guided)


def static_threshold(denoise: Denoiser) -> Denoiser:
    """Clip x_0_hat to [-1, 1]  (Imagen 2.3)."""

    def thresholded(x_t: Image, logsnr_t: LogSnr) -> Denoised:
        guess = denoise(x_t, logsnr_t)
        return with_x_0(guess, jnp.clip(x_0_of(guess), -1.0, 1.0))

    return thresholded


def dynamic_threshold(denoise: Denoiser, percentile: float = 99.5) -> Denoiser:
    """Clip x_0_hat to [-s, s] and divide by s, s = max(1, percentile of |x_0_hat|)  (Imagen 2.3).

    One s per image; percentile in percent.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile={percentile}: in percent, above 0 and at most 100")

    def thresholded(x_t: Image, logsnr_t: LogSnr) -> Denoised:
        guess = denoise(x_t, logsnr_t)
        x_0_hat = x_0_of(guess)
        s = jnp.percentile(jnp.abs(x_0_hat), percentile, axis=(1, 2, 3), keepdims=True)
        s = jnp.maximum(s, 1.0)
        return with_x_0(guess, jnp.clip(x_0_hat, -s, s) / s)

    return thresholded
