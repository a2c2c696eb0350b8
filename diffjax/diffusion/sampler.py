"""Samplers: a step rule, scanned down the rungs of a ladder of noise levels."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax import rng
from diffjax.diffusion.predict import to_eps
from diffjax.diffusion.process import alpha_sigma, per_image, posterior
from diffjax.types import Denoiser, Image, PRNGKey, PRNGKeys, Schedule

# One rung down: step(denoise, x_t, logsnr_t, logsnr_s, key=...) -> x_s, s < t.
Step: TypeAlias = Callable[..., Image]


def ladder(schedule: Schedule, num_steps: int) -> Float[Array, " n"]:
    """`num_steps` + 1 rungs, uniform in u from 1 down; the last is +inf: the clean image.

    A sampler evaluates the network once at each rung but the last, so its answer is x_0_hat of
    the last evaluation, with no noise left in it.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps}: at least 1")
    u = jnp.linspace(1.0, 0.0, num_steps + 1)
    return jnp.append(schedule(u[:-1]), jnp.inf)


def sample(
    denoise: Denoiser,
    x_T: Image,
    *,
    logsnrs: Float[Array, " n"],
    step: Step,
    key: PRNGKey | PRNGKeys,
) -> Image:
    """x_0 from noise x_T, one `step` per pair of rungs, as one `lax.scan`.

    With one key per example, image i depends on its own key alone, not on the batch.
    """

    def body(x_t: Image, rung):
        logsnr_t, logsnr_s, key = rung
        at = lambda logsnr: jnp.broadcast_to(logsnr, x_t.shape[:1])  # noqa: E731
        return step(denoise, x_t, at(logsnr_t), at(logsnr_s), key=key), None

    rungs = (logsnrs[:-1], logsnrs[1:], rng.split(key, logsnrs.shape[0] - 1))
    return jax.lax.scan(body, x_T, rungs)[0]


def ddpm(gamma: float = 0.0) -> Step:
    """Ancestral sampling with variance small^(1 - gamma) large^gamma  (Imagen, app. A, eq. 6).

    small = (1 - e^(l_t - l_s)) sigma_s^2 is the posterior's, large = (1 - e^(l_t - l_s))
    sigma_t^2 the forward step's; gamma = 0 and 1 are DDPM's two choices (Ho et al. 2020, 3.2).
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma={gamma}: between 0 (small variance) and 1 (large)")

    def step(denoise, x_t, logsnr_t, logsnr_s, *, key):
        mean, small = posterior(denoise(x_t, logsnr_t), x_t, logsnr_s, logsnr_t)
        if gamma == 0:
            variance = small
        else:
            # sigma_t^2 / sigma_s^2, kept finite at the clean rung, where small is 0 anyway
            log_ratio = jax.nn.log_sigmoid(-logsnr_t) - jax.nn.log_sigmoid(-logsnr_s)
            ratio = per_image(jnp.exp(gamma * jnp.where(jnp.isinf(logsnr_s), 0.0, log_ratio)))
            variance = small * ratio
        return mean + jnp.sqrt(variance) * rng.normal(key, x_t.shape)

    return step


def ddim(eta: float = 0.0) -> Step:
    """x_s = alpha_s x_0 + sqrt(sigma_s^2 - eta^2 v) eps + eta sqrt(v) z  (Song et al. 2021).

    v is the posterior's variance: eta = 1 is DDPM with the small variance, eta = 0 draws nothing.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta={eta}: between 0 (deterministic) and 1 (ancestral)")

    def step(denoise, x_t, logsnr_t, logsnr_s, *, key):
        x_0_hat = denoise(x_t, logsnr_t)
        eps_hat = to_eps(x_0_hat, x_t, logsnr_t, "x_0")
        alpha_s, sigma_s = alpha_sigma(logsnr_s)
        if eta == 0:
            return alpha_s * x_0_hat + sigma_s * eps_hat
        move = per_image(-jnp.expm1(logsnr_t - logsnr_s))
        # sigma_s^2 (1 - eta^2 move) rather than a difference, which could fall below 0
        kept = sigma_s * jnp.sqrt(1.0 - eta**2 * move)
        drawn = eta * sigma_s * jnp.sqrt(move)
        return alpha_s * x_0_hat + kept * eps_hat + drawn * rng.normal(key, x_t.shape)

    return step


SAMPLERS = {"ddpm": ddpm, "ddim": ddim}
