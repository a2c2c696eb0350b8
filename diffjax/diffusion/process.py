"""The forward process q(x_t | x_0) and its posterior, variance preserving, in log SNR."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core.types import Image, LogSnr, PerImage


def per_image(x: Float[Array, " b"]) -> PerImage:
    """[b] -> [b 1 1 1]: a number per image never meets the width axis by accident."""
    return x[:, None, None, None]


def alpha_sigma(logsnr: LogSnr) -> tuple[PerImage, PerImage]:
    """alpha^2 = sigmoid(logsnr), sigma^2 = sigmoid(-logsnr)  (Kingma et al. 2021, sec. 3).

    Each from its own log-sigmoid: 1 - alpha^2 would lose sigma at the clean end.
    """
    alpha = jnp.exp(0.5 * jax.nn.log_sigmoid(logsnr))
    sigma = jnp.exp(0.5 * jax.nn.log_sigmoid(-logsnr))
    return per_image(alpha), per_image(sigma)


def diffuse(x_0: Image, eps: Image, logsnr_t: LogSnr) -> Image:
    """x_t = alpha_t x_0 + sigma_t eps  (Ho et al. 2020, eq. 4; Kingma et al. 2021, eq. 1)."""
    alpha_t, sigma_t = alpha_sigma(logsnr_t)
    return alpha_t * x_0 + sigma_t * eps


def renoise(x_s: Image, eps: Image, logsnr_s: LogSnr, logsnr_t: LogSnr) -> Image:
    """x_t = (alpha_t / alpha_s) x_s + sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2) eps, s < t.

    A draw from q(x_t | x_s): from a level to a noisier one, logsnr_t <= logsnr_s (Kingma et al.
    2021, app. A; RePaint's way back, Lugmayr et al. 2022, alg. 1). The variance is computed as
    (1 - e^(l_t - l_s)) sigma_t^2, with l the logsnr, which is the same number without the
    cancellation. logsnr_s may be +inf (clean); equal finite levels return x_s itself.
    """
    ratio = jnp.exp(0.5 * (jax.nn.log_sigmoid(logsnr_t) - jax.nn.log_sigmoid(logsnr_s)))
    fresh = jnp.sqrt(jax.nn.sigmoid(-logsnr_t) * -jnp.expm1(logsnr_t - logsnr_s))
    return per_image(ratio) * x_s + per_image(fresh) * eps


def posterior(x_0: Image, x_t: Image, logsnr_s: LogSnr, logsnr_t: LogSnr) -> tuple[Image, PerImage]:
    """Mean and variance of q(x_s | x_t, x_0), s < t  (Kingma et al. 2021, eq. 25 to 32).

    mean = e^(l_t - l_s) (alpha_s / alpha_t) x_t + (1 - e^(l_t - l_s)) alpha_s x_0,
    variance = (1 - e^(l_t - l_s)) sigma_s^2, with l the logsnr. logsnr_s may be +inf (clean).
    """
    alpha_t, _ = alpha_sigma(logsnr_t)
    alpha_s, sigma_s = alpha_sigma(logsnr_s)
    keep = per_image(jnp.exp(logsnr_t - logsnr_s))
    move = per_image(-jnp.expm1(logsnr_t - logsnr_s))
    return keep * (alpha_s / alpha_t) * x_t + move * alpha_s * x_0, move * jnp.square(sigma_s)
