import jax.numpy as jnp
import numpy as np
from PIL import Image

from diffjax.images import pixels


def test_every_byte_survives_the_round_trip():
    bytes_ = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
    image = pixels.from_uint8(bytes_)
    np.testing.assert_array_equal(pixels.to_uint8(image), bytes_)
    assert float(image.min()) == -1.0
    assert float(image.max()) == 1.0


def test_values_outside_minus_one_to_one_are_clipped():
    image = jnp.array([-3.0, -1.0, 1.0, 3.0]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(pixels.to_uint8(image).ravel(), [0, 0, 255, 255])


def test_shrinking_turns_fine_stripes_and_checkers_into_their_mean():
    """Taking every fourth pixel would turn stripes of period 4 black or white."""
    stripe = jnp.tile(jnp.array([1.0, -1.0, -1.0, -1.0]), 16)
    stripes = jnp.broadcast_to(stripe[None, None, :, None], (1, 64, 64, 3))
    small = pixels.resize(stripes, 16, 16)
    np.testing.assert_allclose(small[:, 3:-3, 3:-3], -0.5, atol=0.05)
    y, x = np.mgrid[:64, :64]
    checker = jnp.asarray((-1.0) ** (x + y), jnp.float32)[None, :, :, None]
    np.testing.assert_allclose(pixels.resize(checker, 16, 16)[:, 3:-3, 3:-3], 0.0, atol=0.05)


def test_resize_equals_pillows_antialiased_bicubic():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (16, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    ours = pixels.to_uint8(pixels.resize(pixels.from_uint8(jnp.asarray(picture)[None]), 16, 16))
    theirs = np.asarray(Image.fromarray(picture).resize((16, 16), Image.Resampling.BICUBIC))
    difference = np.abs(np.asarray(ours[0], int) - theirs)
    assert difference[1:-1, 1:-1].max() <= 2  # the two treat borders differently
