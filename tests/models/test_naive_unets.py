"""The networks with almost all parameters at zero, against NumPy: where their skips go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models.efficient_unet import EfficientUNet
from diffjax.models.layers.blocks import num_groups
from tests.models.inputs import inputs
from tests.models.layers.naive import numpy_group_norm

WIDTH = 8
TINY = dict(width=WIDTH, mults=(1,), num_blocks=(1,), attention_levels=(), head_width=4,
            token_width=8)  # fmt: skip


def pointwise(shape, seed):
    """A 3 x 3 convolution that looks at one pixel, and its matrix."""
    matrix = np.random.default_rng(seed).normal(size=shape[2:])
    kernel = np.zeros(shape)
    kernel[1, 1] = matrix
    return jnp.asarray(kernel, jnp.float32), matrix


@pytest.mark.parametrize("skip", ["add", "concat"])
def test_the_stem_alone_reaches_the_head_scaled_by_the_root_of_a_half(skip):
    """All between is zero but the bias of the last convolution on the way up: a sum of the two."""
    net = EfficientUNet(**TINY, skip=skip)
    given = inputs(net, size=4)
    shapes = jax.eval_shape(net.init, jax.random.key(0), **given)["params"]
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    stem, into = pointwise(params["stem"]["kernel"].shape, 1)
    params["stem"]["kernel"] = stem
    bias = np.linspace(-1, 2, WIDTH)
    params["up_0_stride"]["bias"] = jnp.asarray(bias, jnp.float32)
    head = params["head"]
    head["norm"]["scale"] = jnp.ones_like(head["norm"]["scale"])
    head["conv"]["kernel"], out = pointwise(head["conv"]["kernel"].shape, 2)
    x = np.concatenate([given["x_t"], given["low_res"]], axis=-1).astype(np.float64)
    scaled = np.sqrt(0.5) * (x @ into)
    above = np.broadcast_to(bias, scaled.shape)
    h = above + scaled if skip == "add" else np.concatenate([above, scaled], axis=-1)
    normed = numpy_group_norm(h, num_groups(h.shape[-1]))
    want = (normed / (1 + np.exp(-normed))) @ out
    np.testing.assert_allclose(net.apply({"params": params}, **given), want, atol=1e-4)
