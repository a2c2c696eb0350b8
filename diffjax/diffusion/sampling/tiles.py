"""Networks on pictures larger than they were trained on, by tiles that overlap."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffjax.core.types import Denoised, Denoiser, Image, LogSnr, Resized
from diffjax.diffusion.predict import x_0_of

# (x_t of a tile, logsnr_t, the tile's top left corner as (y, x)) -> x_0_hat of the tile.
TileDenoiser: TypeAlias = Callable[[Image, LogSnr, Int[Array, "2"]], Denoised]


def tiled(
    denoise_at: TileDenoiser, *, height_px: int, width_px: int, tile_px: int, overlap_px: int
) -> Denoiser:
    """x_0_hat = sum_i w_i x_0_hat_i / sum_i w_i over the tiles i  (Bar-Tal et al. 2023, eq. 5).

    The tiles are averaged at every step, not only at the end, so that no seam shows. w_i falls to
    the tile's edges over the overlap. Tiles are denoised one after the other: memory is that of
    one.

    Raises:
      ValueError: a picture smaller than a tile, or an overlap outside [0, tile_px).
    """
    sides = [starts(side_px, tile_px, overlap_px) for side_px in (height_px, width_px)]
    corners = np.array([(y, x) for y in sides[0] for x in sides[1]], np.int32)
    window = _window(tile_px, overlap_px)
    total = np.zeros((height_px, width_px), np.float32)
    for y, x in corners:
        total[y : y + tile_px, x : x + tile_px] += window

    def denoise(x_t: Image, logsnr_t: LogSnr) -> Denoised:
        if len(corners) == 1:
            return denoise_at(x_t, logsnr_t, jnp.asarray(corners[0]))
        size = (x_t.shape[0], tile_px, tile_px, x_t.shape[3])
        weight = jnp.asarray(window)[:, :, None]

        def body(sums: Image, corner: Int[Array, "2"]):
            at = (0, corner[0], corner[1], 0)
            guess = x_0_of(denoise_at(jax.lax.dynamic_slice(x_t, at, size), logsnr_t, corner))
            here = jax.lax.dynamic_slice(sums, at, size)
            return jax.lax.dynamic_update_slice(sums, here + weight * guess, at), None

        sums, _ = jax.lax.scan(body, jnp.zeros_like(x_t), jnp.asarray(corners))
        return sums / jnp.asarray(total)[:, :, None]

    return denoise


def joined(
    function: Callable[[Image], Resized], x: Image, *, tile: int, overlap: int, factor: int
) -> Resized:
    """function(x), whose result is `factor` times larger, tile by tile: sum_i w_i y_i / sum_i w_i.

    w_i falls in a straight line over the overlap. tile, overlap: in places of x; a side of x that
    is shorter than a tile is taken whole. Tiles are computed one after the other.
    """
    b, height, width, _ = x.shape
    tiles = min(tile, height), min(tile, width)
    sides = [
        starts(side, of, min(overlap, of - 1))
        for side, of in zip((height, width), tiles, strict=True)
    ]
    corners = np.array([(y, x_) for y in sides[0] for x_ in sides[1]], np.int32)
    ramps = [_ramp(factor * of, factor * min(overlap, of - 1)) for of in tiles]
    window = np.outer(*ramps)
    total = np.zeros((factor * height, factor * width), np.float32)
    for y, x_ in factor * corners:
        total[y : y + len(window), x_ : x_ + window.shape[1]] += window
    part = (b, *tiles, x.shape[3])
    made = jax.eval_shape(function, jax.ShapeDtypeStruct(part, x.dtype))
    weight = jnp.asarray(window)[:, :, None]

    def body(sums: Image, corner: Int[Array, "2"]):
        y = function(jax.lax.dynamic_slice(x, (0, corner[0], corner[1], 0), part))
        at = (0, factor * corner[0], factor * corner[1], 0)
        here = jax.lax.dynamic_slice(sums, at, made.shape)
        return jax.lax.dynamic_update_slice(sums, here + weight * y, at), None

    empty = jnp.zeros((b, *total.shape, made.shape[3]), made.dtype)
    sums, _ = jax.lax.scan(body, empty, jnp.asarray(corners))
    return sums / jnp.asarray(total)[:, :, None]


def starts(side_px: int, tile_px: int, overlap_px: int) -> list[int]:
    """Where tiles begin along a side: evenly spread, overlapping by at least overlap_px."""
    if not 0 <= overlap_px < tile_px <= side_px:
        raise ValueError(
            f"side_px={side_px}, tile_px={tile_px}, overlap_px={overlap_px}: "
            "want 0 <= overlap_px < tile_px <= side_px"
        )
    num = -(-(side_px - overlap_px) // (tile_px - overlap_px))
    return [round(start) for start in np.linspace(0, side_px - tile_px, num)]


def _window(tile_px: int, overlap_px: int) -> Float[np.ndarray, "h w"]:
    """1 in the middle, falling in a straight line to the edges, above 0 everywhere."""
    ramp = _ramp(tile_px, overlap_px)
    return np.outer(ramp, ramp)


def _ramp(tile_px: int, overlap_px: int) -> Float[np.ndarray, "h"]:
    away = np.minimum(np.arange(1, tile_px + 1), np.arange(tile_px, 0, -1))
    return np.minimum(1.0, away / (overlap_px + 1)).astype(np.float32)
