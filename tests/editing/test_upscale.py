"""Enlarging pictures with stages whose every answer is known in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.editing import upscale
from diffjax.generation import chain
from diffjax.images import pixels
from diffjax.tasks.conditions import shrink
from tests.diffusion.helpers import images
from tests.editing.stages import COLOURS, GAUSSIAN, SEEDS, no_text


def test_a_picture_of_the_stages_own_size_is_enlarged_as_in_the_cascade():
    small = jnp.tanh(images(5, (6, 4, 4, 3)))
    how = dict(seeds=SEEDS)
    (a,) = upscale.upscale(GAUSSIAN[1:], no_text(6), picture=small, faithful=False, **how)
    (b,) = chain.generate(GAUSSIAN[1:], {**no_text(6), "low_res": small}, **how)
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 9)])
def test_any_picture_is_enlarged_by_the_stages_factor(size):
    """By a network that only enlarges: bicubically, up to its tiles' and the picture's edges."""
    picture = jnp.tanh(images(6, (1, *size, 3)))
    how = dict(picture=picture, seeds=SEEDS[:1], faithful=False)
    (large,) = upscale.upscale(COLOURS[1:], no_text(1), **how)
    height, width = (4 * side for side in size)
    assert large.shape == (1, height, width, 3)
    padded = upscale.at_least(picture, COLOURS[1].task)
    want = pixels.resize(padded, *(4 * side for side in padded.shape[1:3]))
    np.testing.assert_allclose(large, jnp.clip(want, -1, 1)[:, :height, :width], atol=1e-3)
    assert upscale.num_tiles(COLOURS[1].task, *size) == {1: 1, 9: 3}[size[1]]


def test_a_faithful_picture_keeps_its_colours_and_the_truth_stays_as_it_is():
    """Shrunk it is what it was made from, where a network that drifts would lead away."""
    large = jnp.tanh(images(7, (2, 16, 12, 3)))
    small = shrink(large, 4)
    told = lambda guess: upscale.consistent(lambda x, logsnr: guess, small, 4)(  # noqa: E731
        large, jnp.zeros(2)
    )
    np.testing.assert_allclose(told(large), large, atol=1e-6)
    np.testing.assert_allclose(told(large + 0.3), large, atol=1e-5)
    wrong = large + images(8, (2, 16, 12, 3))
    away = lambda guess: float(jnp.sqrt(jnp.mean((shrink(guess, 4) - small) ** 2)))  # noqa: E731
    assert away(told(wrong)) < 0.4 * away(wrong)
    # what the filter does not see is left to the network
    fine = jnp.tile(jnp.array([0.5, -0.5]), 6)[None, None, :, None]
    added = (told(large + fine) - large)[:, :, 4:8]
    np.testing.assert_allclose(added, jnp.broadcast_to(fine[:, :, 4:8], added.shape), atol=0.05)


def test_stages_that_start_from_noise_enlarge_nothing():
    with pytest.raises(ValueError, match="stage base starts from noise"):
        upscale.upscale(COLOURS, no_text(1), picture=jnp.zeros((1, 4, 4, 3)), seeds=SEEDS[:1])
    with pytest.raises(ValueError, match="at least one"):
        upscale.upscale([], no_text(1), picture=jnp.zeros((1, 4, 4, 3)), seeds=SEEDS[:1])
