"""The forward process q(x_t | x_0) and its posterior, variance preserving, in log SNR.

Data are [b *shape], whatever the shape of an example; a noise level is a number per example.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from diffjax.core import rng
from diffjax.core.types import (
    Data,
    Factor,
    LogSnr,
    PerExample,
    PRNGKey,
    PRNGKeys,
    Reshaped,
    Schedule,
)

# Of this only the number of axes counts.
Like: TypeAlias = Shaped[Array, "..."] | None


def per_example(x: Shaped[Array, " b"], like: Like = None) -> Shaped[Array, "b ..."]:
    """[b] -> [b 1 ... 1] with as many axes as `like`, so that it multiplies example by example.

    Without `like`, the data are pictures [b h w c].
    """
    axes = 4 if like is None else like.ndim
    return jnp.expand_dims(x, tuple(range(1, axes)))


def per_image(x: PerExample) -> Factor:
    """[b] -> [b 1 1 1]: `per_example` for pictures."""
    return per_example(x)


def axes_of_each(x: Reshaped) -> tuple[int, ...]:
    """The axes of one example: all but the first."""
    return tuple(range(1, x.ndim))


def mean_of_each(x: Reshaped) -> PerExample:
    """The mean of each example, over all axes but the first."""
    return jnp.mean(x, axis=axes_of_each(x))


def sum_of_each(x: Reshaped) -> PerExample:
    """The sum of each example, over all axes but the first."""
    return jnp.sum(x, axis=axes_of_each(x))


def alpha_sigma(logsnr: LogSnr, like: Like = None) -> tuple[Factor, Factor]:
    """alpha^2 = sigmoid(logsnr), sigma^2 = sigmoid(-logsnr)  (Kingma et al. 2021, sec. 3).

    Each from its own log-sigmoid: 1 - alpha^2 would lose sigma at the clean end. Shaped to multiply
    `like`; see `per_example`.
    """
    alpha = jnp.exp(0.5 * jax.nn.log_sigmoid(logsnr))
    sigma = jnp.exp(0.5 * jax.nn.log_sigmoid(-logsnr))
    return per_example(alpha, like), per_example(sigma, like)


def diffuse(x_0: Data, eps: Data, logsnr_t: LogSnr) -> Data:
    """x_t = alpha_t x_0 + sigma_t eps  (Ho et al. 2020, eq. 4; Kingma et al. 2021, eq. 1)."""
    alpha_t, sigma_t = alpha_sigma(logsnr_t, x_0)
    return alpha_t * x_0 + sigma_t * eps


def renoise(x_s: Data, eps: Data, logsnr_s: LogSnr, logsnr_t: LogSnr) -> Data:
    """x_t = (alpha_t / alpha_s) x_s + sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2) eps, s < t.

    A draw from q(x_t | x_s): from a level to a noisier one, logsnr_t <= logsnr_s (Kingma et al.
    2021, app. A; RePaint's way back, Lugmayr et al. 2022, alg. 1). The variance is computed as
    (1 - e^(l_t - l_s)) sigma_t^2, with l the logsnr, which is the same number without the
    cancellation. logsnr_s may be +inf (clean); equal finite levels return x_s itself.
    """
    ratio = jnp.exp(0.5 * (jax.nn.log_sigmoid(logsnr_t) - jax.nn.log_sigmoid(logsnr_s)))
    fresh = jnp.sqrt(jax.nn.sigmoid(-logsnr_t) * -jnp.expm1(logsnr_t - logsnr_s))
    return per_example(ratio, x_s) * x_s + per_example(fresh, x_s) * eps


def posterior(x_0: Data, x_t: Data, logsnr_s: LogSnr, logsnr_t: LogSnr) -> tuple[Data, Factor]:
    """Mean and variance of q(x_s | x_t, x_0), s < t  (Kingma et al. 2021, eq. 25 to 32).

    mean = e^(l_t - l_s) (alpha_s / alpha_t) x_t + (1 - e^(l_t - l_s)) alpha_s x_0,
    variance = (1 - e^(l_t - l_s)) sigma_s^2, with l the logsnr. logsnr_s may be +inf (clean).
    """
    alpha_t, _ = alpha_sigma(logsnr_t, x_t)
    alpha_s, sigma_s = alpha_sigma(logsnr_s, x_t)
    keep = per_example(jnp.exp(logsnr_t - logsnr_s), x_t)
    move = per_example(-jnp.expm1(logsnr_t - logsnr_s), x_t)
    return keep * (alpha_s / alpha_t) * x_t + move * alpha_s * x_0, move * jnp.square(sigma_s)


def augment(
    low_res: Data, aug_level: PerExample, *, key: PRNGKey | PRNGKeys, schedule: Schedule
) -> tuple[Data, LogSnr]:
    """A condition noised to u = aug_level, and the logsnr of that very noise.

    Noise conditioning augmentation (Ho et al. 2022; Imagen 2.4). One function for training and
    sampling, so that the level the network is told is the level that was applied. low_res in
    [-1, 1]; aug_level in [0, 1], 0 is clean and 1 pure noise.
    """
    logsnr = schedule(jnp.clip(aug_level, 0.0, 1.0))
    return diffuse(low_res, rng.normal(key, low_res.shape), logsnr), logsnr
