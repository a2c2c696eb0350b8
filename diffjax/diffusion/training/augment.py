"""Noise conditioning augmentation of a low-resolution condition (Ho et al. 2022; Imagen 2.4)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core import rng
from diffjax.core.types import Image, LogSnr, PRNGKey, PRNGKeys, Schedule
from diffjax.diffusion.process import diffuse


def augment(
    low_res: Image, aug_level: Float[Array, " b"], *, key: PRNGKey | PRNGKeys, schedule: Schedule
) -> tuple[Image, LogSnr]:
    """The low-resolution image noised to u = aug_level, and the logsnr of that very noise.

    One function for training and sampling, so that the level the network is told is the level
    that was applied. low_res in [-1, 1]; aug_level in [0, 1], 0 is clean and 1 pure noise.
    """
    logsnr = schedule(jnp.clip(aug_level, 0.0, 1.0))
    return diffuse(low_res, rng.normal(key, low_res.shape), logsnr), logsnr
