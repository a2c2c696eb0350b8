import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models.layers import blocks
from tests.diffusion.helpers import images
from tests.models.layers.naive import numpy_group_norm


@pytest.mark.parametrize("channels", [16, 48, 128])
def test_norm_equals_its_definition_in_float64(channels):
    h = 3.0 * images(0, (2, 5, 4, channels)) + 1.0
    scale, shift = jax.random.normal(jax.random.key(1), (2, 2, channels))
    norm = blocks.Norm()
    params = {
        "params": {"scale": 0.5 + jnp.arange(channels) / channels, "bias": jnp.ones(channels)}
    }
    got = norm.apply(params, h, scale, shift)
    gain = np.asarray(params["params"]["scale"], np.float64)
    wanted = numpy_group_norm(h, blocks.num_groups(channels)) * gain + 1.0
    wanted = wanted * (1 + np.asarray(scale)[:, None, None]) + np.asarray(shift)[:, None, None]
    np.testing.assert_allclose(got, wanted, atol=2e-5)
    flax_norm = nn.GroupNorm(blocks.num_groups(channels), epsilon=1e-5)
    np.testing.assert_allclose(norm.apply(params, h), flax_norm.apply(params, h), atol=2e-5)


def test_norm_returns_float32_for_any_input_dtype():
    h = images(0, (1, 4, 4, 16)).astype(jnp.bfloat16)
    variables = blocks.Norm().init(jax.random.key(0), h)
    assert blocks.Norm().apply(variables, h).dtype == jnp.float32


@pytest.mark.parametrize(("channels", "groups"), [(3, 1), (16, 4), (48, 4), (64, 16), (512, 32)])
def test_the_number_of_groups_divides_the_channels(channels, groups):
    assert blocks.num_groups(channels) == groups
    assert channels % groups == 0


def test_from_patches_is_the_inverse_of_to_patches_and_neighbours_share_a_patch():
    x = images(0, (2, 8, 12, 3))
    patches = blocks.to_patches(x, 4)
    assert patches.shape == (2, 2, 3, 48)
    np.testing.assert_array_equal(blocks.from_patches(patches, 4), x)
    np.testing.assert_array_equal(patches[0, 1, 2].reshape(4, 4, 3), x[0, 4:8, 8:12])


def test_downsampling_and_upsampling_keep_the_mean():
    x = images(0, (2, 8, 8, 3))
    np.testing.assert_allclose(blocks.downsample(blocks.upsample(x)), x, atol=1e-6)
    np.testing.assert_allclose(blocks.downsample(x).mean(), x.mean(), atol=1e-6)


@pytest.mark.parametrize("resample", [None, "up", "down"])
def test_a_new_block_only_resamples_its_input(resample):
    h, emb = images(0, (2, 8, 8, 16)), jnp.ones((2, 8))
    block = blocks.ResBlock(16, resample)
    out = block.apply(block.init(jax.random.key(0), h, emb), h, emb)
    move = {None: lambda x: x, "up": blocks.upsample, "down": blocks.downsample}[resample]
    np.testing.assert_array_equal(out, move(h))
