"""Functions of large pictures, computed tile by tile."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion.sampling.tiles import joined


def mean_of_three(x):
    """Each place twice as large, and the mean of itself and its neighbours, 0 outside."""
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = x.shape[1:3]
    parts = [padded[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return sum(parts) / 9


@pytest.mark.parametrize("sides", [(12, 12), (5, 19), (23, 8)])
def test_tiles_joined_equal_the_whole_but_at_the_edges_of_tiles(sides):
    x = np.random.default_rng(0).standard_normal((2, *sides, 3)).astype(np.float32)
    whole = np.asarray(mean_of_three(x))
    made = np.asarray(joined(mean_of_three, jnp.asarray(x), tile=8, overlap=2, factor=2))
    tiles = [min(8, side) for side in sides]
    away = np.abs(made - whole).max(axis=(0, 3))
    # The outermost pixel of a tile lacks its neighbours; it counts 1 / 5 at most.
    inside = [np.ones(2 * side, bool) for side in sides]
    for at, (side, tile) in enumerate(zip(sides, tiles, strict=True)):
        for start in {0, side - tile} | set(_starts(side, tile)):
            for edge in (2 * start, 2 * (start + tile) - 1):
                if 0 < edge < 2 * side - 1:
                    inside[at][edge] = False
    np.testing.assert_array_less(away[np.ix_(*inside)], 1e-6)
    assert away.max() < 0.5


def test_neighbouring_tiles_fade_into_each_other_along_a_straight_line():
    """A function that says which tile it is: its smallest place."""
    x = jnp.arange(7.0)[None, None, :, None]
    made = joined(lambda part: jnp.full_like(part, part.min()), x, tile=4, overlap=1, factor=1)
    np.testing.assert_allclose(np.asarray(made)[0, 0, :, 0], [0, 0, 0, 1.5, 3, 3, 3], rtol=1e-6)


def _starts(side, tile):
    count = -(-(side - 2) // (tile - 2)) if side > tile else 1
    return [round(one) for one in np.linspace(0, side - tile, count)]
