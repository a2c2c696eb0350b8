"""Degrades small pictures, so that an upsampler takes imperfect ones.

Ramesh et al. 2022, sec. 2.3. "blur" is a slight Gaussian blur of a half of the pictures, as Ho et
al. 2022 have it. "bsr" is a simplified form of the degradations of BSRGAN (Zhang et al. 2021):
blur, resizing, noise and JPEG's rounding, each in a half of the pictures and of a random strength.
BSRGAN also shuffles them, and has more kinds of each.
"""

import functools
from collections.abc import Callable
from typing import Literal, TypeAlias

import einops
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffjax.core import rng
from diffjax.core.types import Image, PRNGKeys, Resized

Degradation: TypeAlias = Literal["blur", "bsr"]
Picture: TypeAlias = Float[Array, "h w c"]
DEGRADATIONS: tuple[Degradation, ...] = ("blur", "bsr")
SHARE = 0.5  # of the pictures, for each step
BLUR_PX = 0.6  # the standard deviation; its kernel has 3 x 3 pixels (Ramesh et al. 2022, app. C)
WIDEST_PX = 1.5  # the widest blur of "bsr", whose kernel has 7 x 7 pixels
SMALLEST = 2  # "bsr" shrinks to a half and enlarges again
NOISIEST = 25 / 127.5  # the largest standard deviation of its noise, in units of [-1, 1]
QUALITY = (30.0, 95.0)  # of its JPEG
# The steps to which JPEG rounds the luminance's frequencies at quality 50 (ITU-T T.81, annex K).
STEPS = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)


def degrade(image: Image, kind: Degradation, keys: PRNGKeys) -> Resized:
    """The pictures in [-1, 1], each degraded as its key says."""
    steps: tuple[tuple[str, Callable], ...] = (("blur", _blurred_once),)
    if kind == "bsr":
        steps = (("blur", _blurred), ("resize", _resized), ("noise", _noised), ("jpeg", _rounded))
    for name, step in steps:
        drawn = rng.stream(keys, name)
        chosen = jax.vmap(jax.random.uniform)(rng.stream(drawn, "share")) < SHARE
        image = _where(chosen, jax.vmap(step)(image, drawn), image)
    return image


def blur(picture: Picture, sigma_px: float | Float[Array, ""], reach: int) -> Picture:
    """The picture convolved with a Gaussian of 2 reach + 1 pixels a side; edges are repeated."""
    at = jnp.arange(-reach, reach + 1)
    kernel = jnp.exp(-0.5 * (at / sigma_px) ** 2)
    kernel = kernel / jnp.sum(kernel)
    height, width = picture.shape[:2]
    padded = jnp.pad(picture, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    rows = [kernel[i] * padded[i : i + height] for i in range(2 * reach + 1)]
    half = functools.reduce(jnp.add, rows)
    columns = [kernel[i] * half[:, i : i + width] for i in range(2 * reach + 1)]
    return functools.reduce(jnp.add, columns)


def jpeg(picture: Picture, quality: Float[Array, ""] | float) -> Picture:
    """The picture with the frequencies of its 8 x 8 blocks rounded as JPEG does.

    Each colour channel is rounded with the steps of the luminance. Edges are repeated until both
    sides are multiples of 8.
    """
    scale = jnp.where(quality < 50, 50.0 / quality, 2.0 - quality / 50.0)
    steps = jnp.maximum(jnp.floor(jnp.asarray(STEPS) * scale + 0.5), 1.0)
    height, width = picture.shape[:2]
    centred = 127.5 * picture - 0.5  # bytes - 128
    padded = jnp.pad(centred, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
    blocks = einops.rearrange(padded, "(y i) (x j) c -> y x c i j", i=8, j=8)
    waves = jnp.asarray(_cosines())
    frequencies = waves @ blocks @ waves.T
    rounded = jnp.round(frequencies / steps) * steps
    made = einops.rearrange(waves.T @ rounded @ waves, "y x c i j -> (y i) (x j) c")
    return jnp.clip((made[:height, :width] + 0.5) / 127.5, -1.0, 1.0)


@functools.cache
def _cosines() -> Float[np.ndarray, "8 8"]:
    """The orthonormal discrete cosine transform of 8 numbers, a frequency in each row."""
    k, n = np.arange(8)[:, None], np.arange(8)[None]
    waves = np.cos(np.pi * (2 * n + 1) * k / 16) * np.sqrt(np.where(k == 0, 1, 2) / 8)
    return waves.astype(np.float32)


def _blurred_once(picture: Picture, key: jax.Array) -> Picture:
    return blur(picture, BLUR_PX, 1)


def _blurred(picture: Picture, key: jax.Array) -> Picture:
    return blur(picture, _between(key, 0.1, WIDEST_PX), 3)


def _resized(picture: Picture, key: jax.Array) -> Picture:
    """Shrunk and enlarged again, each bilinearly."""
    height, width, channels = picture.shape
    small = (-(-height // SMALLEST), -(-width // SMALLEST), channels)
    return jax.image.resize(jax.image.resize(picture, small, "linear"), picture.shape, "linear")


def _noised(picture: Picture, key: jax.Array) -> Picture:
    noise = jax.random.normal(rng.stream(key, "noise"), picture.shape)
    return picture + _between(key, 0.0, NOISIEST) * noise


def _rounded(picture: Picture, key: jax.Array) -> Picture:
    return jpeg(picture, _between(key, *QUALITY))


def _between(key: jax.Array, low: float, high: float) -> Float[Array, ""]:
    return jax.random.uniform(rng.stream(key, "strength"), (), minval=low, maxval=high)


def _where(chosen: Bool[Array, " b"], one: Image, other: Image) -> Image:
    return jnp.where(chosen[:, None, None, None], one, other)
