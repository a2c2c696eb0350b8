"""What training does to the small pictures of an upsampler."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffjax.core import rng
from diffjax.images import degrade
from diffjax.images.pixels import from_uint8, to_uint8

ROWS = 64
KEYS = rng.per_example(jnp.arange(ROWS))


def drawing(size_px=16):
    """A smooth colourful picture with an edge, [h w 3] in [-1, 1]."""
    y, x = np.mgrid[:size_px, :size_px] / size_px
    waves = np.stack([np.sin(5 * x), np.cos(4 * y), x * y], axis=-1)
    return jnp.asarray(np.where((x > 0.4)[:, :, None], 0.8 * waves, -0.5), jnp.float32)


def test_the_blur_is_the_gaussian_of_the_paper():
    """The kernel of 3 x 3 pixels with sigma 0.6, as an impulse shows it."""
    impulse = jnp.zeros((5, 5, 1)).at[2, 2].set(1.0)
    blurred = degrade.blur(impulse, 0.6, 1)[:, :, 0]
    side = np.exp(-0.5 / 0.36)
    row = np.array([side, 1.0, side]) / (1 + 2 * side)
    np.testing.assert_allclose(blurred[1:4, 1:4], np.outer(row, row), atol=1e-6)
    assert float(jnp.abs(blurred).sum()) == pytest.approx(1.0, abs=1e-6)


def test_a_blur_leaves_a_picture_of_one_colour_as_it_is():
    flat = jnp.full((6, 6, 3), 0.3)
    np.testing.assert_allclose(degrade.blur(flat, 1.5, 3), flat, atol=1e-6)


@pytest.mark.parametrize("quality", [30, 60])
def test_the_rounding_is_that_of_jpeg_for_grey_pictures(quality):
    """Pillow's JPEG of the same quality, up to the bytes to which it rounds on the way."""
    speckles = jnp.asarray(np.arange(256) * 37 % 50 / 50.0, jnp.float32).reshape(16, 16, 1)
    grey = to_uint8(0.5 * (drawing(16)[None, :, :, :1] + speckles).repeat(3, axis=-1))
    stream = io.BytesIO()
    Image.fromarray(np.asarray(grey[0, :, :, 0])).save(stream, "JPEG", quality=quality)
    wanted = np.asarray(Image.open(stream), np.int32)
    made = to_uint8(degrade.jpeg(from_uint8(grey)[0], jnp.float32(quality))[None])[0, :, :, 0]
    apart = lambda one: np.abs(np.asarray(one, np.int32) - wanted).mean()  # noqa: E731
    assert apart(made) < 2.5  # a frequency in the middle of two steps may go either way
    assert apart(grey[0, :, :, 0]) > 5


def test_a_half_of_the_pictures_is_blurred_and_the_others_stay_as_they_are():
    pictures = jnp.repeat(drawing()[None], ROWS, axis=0)
    made = np.asarray(degrade.degrade(pictures, "blur", KEYS))
    moved = np.abs(made - np.asarray(pictures)).max(axis=(1, 2, 3)) > 1e-3
    assert 0.25 < moved.mean() < 0.75
    blurred = np.asarray(degrade.blur(drawing(), 0.6, 1))
    np.testing.assert_allclose(made[moved], np.repeat(blurred[None], moved.sum(), 0), atol=1e-5)


def test_stronger_degradations_differ_from_row_to_row_and_keep_what_is_seen():
    pictures = jnp.repeat(drawing()[None], ROWS, axis=0)
    made = np.asarray(degrade.degrade(pictures, "bsr", KEYS))
    errors = np.sqrt(((made - np.asarray(pictures)) ** 2).mean(axis=(1, 2, 3)))
    assert len(np.unique(errors[errors > 0].round(6))) > ROWS / 2
    assert 0.02 < np.median(errors) < 0.3
    assert errors.max() < 0.6


def test_the_noise_of_a_row_has_a_strength_of_its_own():
    """Uniform up to the largest one."""
    grey = jnp.zeros((ROWS, 16, 16, 3))
    made = np.asarray(jax.vmap(degrade._noised)(grey, KEYS))
    strengths = made.std(axis=(1, 2, 3)) / degrade.NOISIEST
    assert strengths.min() < 0.2
    assert strengths.max() < 1.1
    assert strengths.mean() == pytest.approx(0.5, abs=0.11)


def test_a_row_is_degraded_as_its_key_says_whatever_its_batch():
    pictures = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3), minval=-1.0)
    whole = degrade.degrade(pictures, "bsr", KEYS[:4])
    part = degrade.degrade(pictures[2:3], "bsr", KEYS[2:3])
    np.testing.assert_allclose(whole[2], part[0], atol=1e-5)
