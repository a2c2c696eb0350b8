"""PNDM without Runge-Kutta steps, with which many Stable Diffusions are sampled by default."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.diffusion.predict import to_eps
from diffjax.diffusion.process import alpha_sigma
from diffjax.diffusion.sampling.step import Multistep, image_of, towards

# Of the newest eps_hat and those before it, by how many rungs lie behind: Adams and Bashforth's.
WEIGHTS = (
    (1.0, 0.0, 0.0, 0.0),
    (3 / 2, -1 / 2, 0.0, 0.0),
    (23 / 12, -16 / 12, 5 / 12, 0.0),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


class Noises(NamedTuple):
    """eps_hat of the last three rungs, the newest first, and how many there are."""

    eps_hat: Float[Array, "3 b *shape"]
    known: Int[Array, ""]


def pndm() -> Multistep:
    """x_s = DDIM's step with a mean of the last four eps_hat  (Liu et al. 2022, PNDM, sec. 3.3).

    One evaluation for each rung, and one more for the first: its step is taken twice, the second
    time with the mean of eps_hat at both of its ends. So does diffusers with skip_prk_steps=True,
    if the network predicts eps; of a network that predicts v it takes the mean of v_hat instead.
    """

    def start(x_T):
        return Noises(jnp.zeros((3, *x_T.shape), x_T.dtype), jnp.int32(0))

    def step(denoise, x_t, logsnr_t, logsnr_s, past, *, key):
        x_0_hat = image_of(denoise, x_t, logsnr_t)
        eps_hat = to_eps(x_0_hat, x_t, logsnr_t, "x_0")
        newest = jnp.concatenate([eps_hat[None], past.eps_hat])

        def first():
            x_s = towards(x_0_hat, x_t, logsnr_t, logsnr_s)
            again = to_eps(image_of(denoise, x_s, logsnr_s), x_s, logsnr_s, "x_0")
            return 0.5 * (eps_hat + again)

        def later():
            return jnp.tensordot(jnp.asarray(WEIGHTS, x_t.dtype)[past.known], newest, 1)

        both_ends = (past.known == 0) & ~jnp.isposinf(logsnr_s[0])
        mean = jax.lax.cond(both_ends, first, later)
        # x_0 of the mean; where alpha is small, the x_0 of each eps_hat would be less exact
        alpha_t, sigma_t = alpha_sigma(logsnr_t, x_t)
        guess = x_0_hat - (sigma_t / alpha_t) * (mean - eps_hat)
        x_s = towards(guess, x_t, logsnr_t, logsnr_s)
        return x_s, Noises(newest[:3], jnp.minimum(past.known + 1, 3))

    return Multistep(start, step)
