"""Distillation of steps: a student's one step of DDIM does what several of its teacher's do.

Salimans & Ho 2022 (progressive distillation), where a teacher takes two steps for one of its
student; here it takes k. A teacher with classifier-free guidance is a denoiser like any other, so
the guidance is distilled too (Meng et al. 2023, with one weight).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core.types import Data, Denoiser, LogSnr
from diffjax.diffusion.process import alpha_sigma
from diffjax.diffusion.sampling.step import half_step, image_of, towards

# For each example its own rungs, from x_t's level to x_s's.
Ladders = Float[Array, "b n"]


def jump(denoise: Denoiser, x_t: Data, ladders: Ladders) -> Data:
    """x_s after one step of DDIM for each pair of rungs; the last rung may be +inf.

    No gradient goes through the denoiser.
    """

    def step(x: Data, rungs: tuple[LogSnr, LogSnr]) -> tuple[Data, None]:
        logsnr_t, logsnr_s = rungs
        return towards(image_of(denoise, x, logsnr_t), x, logsnr_t, logsnr_s), None

    x_s, _ = jax.lax.scan(step, x_t, (ladders[:, :-1].T, ladders[:, 1:].T))
    return jax.lax.stop_gradient(x_s)


def x_0_that_leads_to(x_s: Data, x_t: Data, logsnr_t: LogSnr, logsnr_s: LogSnr) -> Data:
    """The x_0_hat with which one step of DDIM from x_t ends at x_s: the inverse of `towards`.

    Salimans & Ho 2022, alg. 2: x_0 = (x_s - (sigma_s / sigma_t) x_t) / (alpha_s (1 - e^-h)). It is
    a mean, with positive weights, of the guesses that led there.
    """
    _, sigma_t = alpha_sigma(logsnr_t, x_t)
    alpha_s, sigma_s = alpha_sigma(logsnr_s, x_t)
    gain = -jnp.expm1(-half_step(logsnr_t, logsnr_s, x_t))
    return (x_s - (sigma_s / sigma_t) * x_t) / (alpha_s * gain)


def target(teacher: Denoiser, x_t: Data, ladders: Ladders) -> Data:
    """What a student shall say at x_t, so that its one step ends where the teacher's steps end."""
    x_s = jump(teacher, x_t, ladders)
    return x_0_that_leads_to(x_s, x_t, ladders[:, 0], ladders[:, -1])
