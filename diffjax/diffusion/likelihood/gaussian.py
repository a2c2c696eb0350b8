"""Gaussians as variational bounds need them: divergences and a discretised likelihood, in nats."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

from diffjax.core.types import Data, LogSnr
from diffjax.diffusion.process import alpha_sigma, per_example

Numbers = Float[Array, "..."]
Number = float | Numbers
# 8-bit levels k / 127.5 - 1: neighbours are 2 / 255 apart.
HALF_BIN = 1.0 / 255.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)


def gaussian_kl(mean_q: Number, log_var_q: Number, mean_p: Number, log_var_p: Number) -> Numbers:
    """KL(q || p) = 1/2 (r - 1 - log r + (mean_q - mean_p)^2 / var_p), r = var_q / var_p.

    In nats per dimension; the four arguments broadcast.
    """
    log_ratio = log_var_q - log_var_p
    # expm1, so that two equal variances leave exactly 0
    distance = jnp.square(mean_q - mean_p) * jnp.exp(-log_var_p)
    return 0.5 * (jnp.expm1(log_ratio) - log_ratio + distance)


def prior_kl(x_0: Data, logsnr_T: LogSnr) -> Data:
    """KL(q(x_T | x_0) || N(0, 1)) = 1/2 (alpha_T^2 (x_0^2 - 1) - log sigma_T^2).

    L_T of Ho et al. 2020, eq. 5, nats per dimension. Nothing here is learned.
    """
    alpha_T, _ = alpha_sigma(logsnr_T, x_0)
    log_var_T = per_example(jax.nn.log_sigmoid(-logsnr_T), x_0)
    return 0.5 * (jnp.square(alpha_T) * (jnp.square(x_0) - 1.0) - log_var_T)


def gaussian_log_likelihood(x: Numbers, mean: Number, log_var: Number) -> Numbers:
    """log N(x; mean, var) = -1/2 ((x - mean)^2 / var + log var + log 2 pi), nats per dimension."""
    distance = jnp.square(x - mean) * jnp.exp(-log_var)
    return -0.5 * (distance + log_var + np.log(2.0 * np.pi))


def discretised_log_likelihood(x_0: Numbers, mean: Number, log_var: Number) -> Numbers:
    """log of the mass that N(mean, var) has in the bin of x_0  (Ho et al. 2020, eq. 13).

    x_0 is one of the 256 levels k / 127.5 - 1; its bin reaches 1 / 255 to either side, and the
    bins of the levels -1 and 1 are open, so that the 256 masses sum to one. In nats per dimension.
    Finite, with finite gradients, however far x_0 lies from the mean.
    """
    inv_std = jnp.exp(-0.5 * log_var)
    lower = (x_0 - mean - HALF_BIN) * inv_std
    upper = (x_0 - mean + HALF_BIN) * inv_std
    inside = _log_mass((x_0 - mean) * inv_std, HALF_BIN * inv_std)
    # an x_0 off the levels counts for the nearest one's kind of bin: open or not
    at_least = jnp.where(x_0 > 1.0 - HALF_BIN, log_ndtr(-lower), inside)
    return jnp.where(x_0 < -1.0 + HALF_BIN, log_ndtr(upper), at_least)


def _log_mass(centre: Numbers, half: Numbers) -> Numbers:
    """log (Phi(c + h) - Phi(c - h)) of the standard normal, to rounding for every c and h > 0.

    A wide bin is a difference in logs, in the left tail, where Phi does not round to 1. In a
    narrow one that difference would cancel; there it is log phi(c) + log of the integral of
    e^(-c s - s^2 / 2) over |s| < h, by eight points of Gauss and Legendre.
    """
    centre, half = jnp.broadcast_arrays(-jnp.abs(centre), half)
    narrow = half * jnp.maximum(1.0, -centre) < 1.0
    # each branch sees harmless numbers where the other is chosen: no NaN in a gradient
    c, h = jnp.where(narrow, centre, 0.0), jnp.where(narrow, half, 1.0)
    s = h[..., None] * jnp.asarray(_NODES, c.dtype)
    area = jnp.exp(-s * (c[..., None] + 0.5 * s)) @ jnp.asarray(_WEIGHTS, c.dtype)
    by_points = -0.5 * (jnp.square(c) + np.log(2.0 * np.pi)) + jnp.log(h * area)
    c, h = jnp.where(narrow, -1.0, centre), jnp.where(narrow, 1.0, half)
    log_upper, log_lower = log_ndtr(c + h), log_ndtr(c - h)
    by_difference = log_upper + jnp.log(-jnp.expm1(log_lower - log_upper))
    return jnp.where(narrow, by_points, by_difference)
