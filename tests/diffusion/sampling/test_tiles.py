import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion.sampling import sampler, tiles
from tests.diffusion.helpers import gaussian_denoiser, images

SIZE = dict(height_px=20, width_px=13, tile_px=8, overlap_px=3)


def test_a_denoiser_that_looks_at_each_pixel_alone_knows_nothing_of_tiles():
    """Also where its mean differs from place to place: every tile is told where it lies."""
    mean, x_t, logsnr = images(0, (1, 20, 13, 3)), images(1, (2, 20, 13, 3)), jnp.zeros(2)

    def at(x, logsnr_t, corner):
        part = jax.lax.dynamic_slice(mean, (0, corner[0], corner[1], 0), (1, 8, 8, 3))
        return gaussian_denoiser(part, 0.3)(x, logsnr_t)

    got = tiles.tiled(at, **SIZE)(x_t, logsnr)
    np.testing.assert_allclose(got, gaussian_denoiser(mean, 0.3)(x_t, logsnr), atol=1e-6)


def test_where_tiles_disagree_the_answer_goes_from_one_to_the_other_without_a_step():
    """Tiles that say their own left edge: a straight line over the overlap."""
    say = lambda x, logsnr_t, corner: jnp.full_like(x, corner[1])  # noqa: E731
    denoise = tiles.tiled(say, height_px=8, width_px=14, tile_px=8, overlap_px=2)
    row = np.asarray(denoise(jnp.zeros((1, 8, 14, 1)), jnp.zeros(1)))[0, 0, :, 0]
    np.testing.assert_allclose(row, [0] * 6 + [2, 4] + [6] * 6, atol=1e-6)


def test_a_picture_of_one_tile_is_that_tile():
    denoise = gaussian_denoiser(0.1, 0.3)
    tiled = tiles.tiled(
        lambda x, logsnr, corner: denoise(x, logsnr),
        height_px=8,
        width_px=8,
        tile_px=8,
        overlap_px=2,
    )
    x_T, rungs = images(0, (2, 8, 8, 3)), jnp.append(jnp.linspace(-6.0, 6.0, 5), jnp.inf)
    got, want = (
        sampler.sample(d, x_T, logsnrs=rungs, step=sampler.ddim(), key=None)
        for d in (tiled, denoise)
    )
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("side", "want"), [(8, [0]), (9, [0, 1]), (14, [0, 6]), (15, [0, 4, 7]), (26, [0, 6, 12, 18])]
)
def test_tiles_reach_from_end_to_end_and_overlap(side, want):
    got = tiles.starts(side, 8, 2)
    assert got == want
    assert got[-1] + 8 == side
    assert all(b - a <= 6 for a, b in itertools.pairwise(got))


@pytest.mark.parametrize(("side", "overlap"), [(7, 2), (9, 8), (9, -1)])
def test_tiles_that_cannot_be_are_named(side, overlap):
    with pytest.raises(ValueError, match=f"side_px={side}.*overlap_px={overlap}"):
        tiles.starts(side, 8, overlap)
