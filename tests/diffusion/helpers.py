"""Oracles: data whose best denoiser is known in closed form."""

import jax
import jax.numpy as jnp

from diffjax.diffusion.process import alpha_sigma

# One example of each kind of data that the functions of diffjax.diffusion take.
SHAPES = {"vector": (12,), "points": (4, 3), "sequence": (6, 2), "picture": (2, 3, 2)}


def images(seed, shape=(4, 8, 6, 3)):
    return jax.random.normal(jax.random.key(seed), shape)


def gaussian_denoiser(mean, variance):
    """E[x_0 | x_t] for x_0 ~ N(mean, variance), independent numbers."""

    def denoise(x_t, logsnr_t):
        alpha_t, sigma_t = alpha_sigma(logsnr_t, x_t)
        gain = alpha_t * variance / (alpha_t**2 * variance + sigma_t**2)
        return mean + gain * (x_t - alpha_t * mean)

    return denoise


def constant_denoiser(x_0):
    """The perfect denoiser of a data set that holds one example per row."""
    return lambda x_t, logsnr_t: jnp.broadcast_to(x_0, x_t.shape)
