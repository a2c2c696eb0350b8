"""Converts pictures between bytes and [-1, 1], and resizes them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt8

from diffjax.core.types import Image, Resized


def from_uint8(pixels: UInt8[Array, "b h w c"]) -> Image:
    """x / 127.5 - 1: bytes to [-1, 1]. `to_uint8` is the exact inverse."""
    return pixels.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(image: Image) -> UInt8[Array, "b h w c"]:
    """[-1, 1] to bytes, clipped and rounded to the nearest."""
    return jnp.round(jnp.clip(image + 1.0, 0.0, 2.0) * 127.5).astype(jnp.uint8)


def resize(image: Image, height_px: int, width_px: int) -> Resized:
    """Resize bicubically, with antialiasing when shrinking, so that fine stripes become grey."""
    b, _, _, c = image.shape
    return jax.image.resize(image, (b, height_px, width_px, c), "cubic", antialias=True)
