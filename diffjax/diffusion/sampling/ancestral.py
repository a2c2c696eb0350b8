"""DDPM and DDIM: one evaluation per rung, fresh noise or none."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from diffjax.core import rng
from diffjax.core.types import Data, Denoised, Factor, Guess, LogSnr
from diffjax.diffusion.predict import x_0_of
from diffjax.diffusion.process import Like, alpha_sigma, per_example, posterior
from diffjax.diffusion.sampling.step import Step, half_step, image_of, towards

# (x_t, logsnr_t) -> s grad log p(y | x_t), see `guidance.gradient_of`.
Push: TypeAlias = Callable[[Data, LogSnr], Data]


def ddpm(gamma: float = 0.0, push: Push | None = None) -> Step:
    """Ancestral sampling with variance small^(1 - gamma) large^gamma  (Imagen, app. A, eq. 6).

    small = (1 - e^(l_t - l_s)) sigma_s^2 is the posterior's, large = (1 - e^(l_t - l_s))
    sigma_t^2 the forward step's; gamma = 0 and 1 are DDPM's two choices (Ho et al. 2020, 3.2).
    push: moves the mean by variance * push (Dhariwal & Nichol 2021, alg. 1).
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma={gamma}: between 0 (small variance) and 1 (large)")
    return _ancestral(lambda guess: gamma, push)


def ddpm_learned(push: Push | None = None) -> Step:
    """Ancestral sampling with the variance that the network chose  (Nichol & Dhariwal 2021, 15).

    small^(1 - f) large^f with f per dimension, from a denoiser that returns a `Guess`. push: as in
    `ddpm`, with that variance.

    Raises:
      ValueError: when traced, if the denoiser returns no variance.
    """

    def fraction(guess: Denoised):
        if not isinstance(guess, Guess):
            raise ValueError("the denoiser says no variance: see predict.as_denoiser_with_variance")
        return guess.fraction

    return _ancestral(fraction, push)


def _ancestral(fraction, push: Push | None) -> Step:
    def step(denoise, x_t, logsnr_t, logsnr_s, *, key):
        guess = denoise(x_t, logsnr_t)
        mean, small = posterior(x_0_of(guess), x_t, logsnr_s, logsnr_t)
        spread = jnp.exp(0.5 * fraction(guess) * log_variance_ratio(logsnr_t, logsnr_s, x_t))
        if push is not None:
            # the last step has no variance, so nothing moves the answer's last guess
            mean = mean + small * jnp.square(spread) * push(x_t, logsnr_t)
        return mean + jnp.sqrt(small) * spread * rng.normal(key, x_t.shape)

    return step


def log_variance_ratio(logsnr_t: LogSnr, logsnr_s: LogSnr, like: Like = None) -> Factor:
    """log(large / small) = log(sigma_t^2 / sigma_s^2); 0 at the clean rung, which has no noise."""
    ratio = jax.nn.log_sigmoid(-logsnr_t) - jax.nn.log_sigmoid(-logsnr_s)
    return per_example(jnp.where(jnp.isinf(logsnr_s), 0.0, ratio), like)


def ddim(eta: float = 0.0) -> Step:
    """x_s = alpha_s x_0 + sqrt(sigma_s^2 - eta^2 v) eps + eta sqrt(v) z  (Song et al. 2021, 12).

    v is the posterior's variance: eta = 1 is DDPM with the small variance, eta = 0 draws nothing.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta={eta}: between 0 (deterministic) and 1 (ancestral)")

    def step(denoise, x_t, logsnr_t, logsnr_s, *, key):
        x_0_hat = image_of(denoise, x_t, logsnr_t)
        if eta == 0:
            return towards(x_0_hat, x_t, logsnr_t, logsnr_s)
        _, sigma_t = alpha_sigma(logsnr_t, x_t)
        alpha_s, sigma_s = alpha_sigma(logsnr_s, x_t)
        h = half_step(logsnr_t, logsnr_s, x_t)
        move = -jnp.expm1(-2.0 * h)
        # sigma_s^2 (1 - eta^2 move) rather than a difference, which could fall below 0
        kept = jnp.sqrt(1.0 - eta**2 * move)
        drawn = eta * sigma_s * jnp.sqrt(move)
        # alpha_s x_0 + sigma_s kept eps_hat, with eps_hat = (x_t - alpha_t x_0) / sigma_t
        mean = (sigma_s / sigma_t) * kept * x_t + alpha_s * (1.0 - jnp.exp(-h) * kept) * x_0_hat
        return mean + drawn * rng.normal(key, x_t.shape)

    return step
