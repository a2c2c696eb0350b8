"""Noise schedules: u in [0, 1] -> logsnr, decreasing, finite with finite gradients at both ends."""

import math

import jax.numpy as jnp
import numpy as np

from diffjax.types import Schedule


def cosine(logsnr_min: float = -20.0, logsnr_max: float = 20.0) -> Schedule:
    """logsnr(u) = -2 log tan(a u + b), truncated to the two ends (Ho & Salimans 2022, sec. 3).

    Written with both angles, theta and pi/2 - theta, because tan loses the end near pi/2 in
    float32.
    """
    if not logsnr_min < logsnr_max:
        raise ValueError(f"logsnr_min {logsnr_min} must lie below logsnr_max {logsnr_max}")
    theta_0 = math.atan(math.exp(-logsnr_max / 2))  # u = 0: clean
    phi_1 = math.atan(math.exp(logsnr_min / 2))  # u = 1: noise, phi = pi / 2 - theta
    slope = math.pi / 2 - theta_0 - phi_1

    def logsnr(u):
        theta = theta_0 + slope * u
        phi = phi_1 + slope * (1.0 - u)
        return 2.0 * (jnp.log(jnp.sin(phi)) - jnp.log(jnp.sin(theta)))

    return logsnr


def linear(beta_min: float = 1e-4, beta_max: float = 0.02, num_steps: int = 1000) -> Schedule:
    """beta_t linear in t (Ho et al. 2020, sec. 4), used continuously (Imagen, app. F.3).

    The table of log SNR is made in float64; u = 0 is its first step and u = 1 its last, and
    between two steps the logsnr is interpolated.
    """
    if not 0 < beta_min <= beta_max < 1:
        raise ValueError(f"betas must satisfy 0 < beta_min <= beta_max < 1: {beta_min}, {beta_max}")
    table = logsnr_table(np.linspace(beta_min, beta_max, num_steps))
    grid = np.linspace(0.0, 1.0, num_steps)
    return lambda u: jnp.interp(u, grid.astype(np.float32), table.astype(np.float32))


def logsnr_table(betas: np.ndarray) -> np.ndarray:
    """log(alpha_bar_t / (1 - alpha_bar_t)), alpha_bar_t = prod(1 - beta_s), in float64."""
    log_alpha_bar = np.cumsum(np.log1p(-np.asarray(betas, np.float64)))
    return log_alpha_bar - np.log(-np.expm1(log_alpha_bar))
