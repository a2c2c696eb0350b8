"""The U-Net of latent diffusion: its counts, its rules, and what its output depends on."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core.trees import named_leaves
from diffjax.devices.mesh import spec_of
from diffjax.models.latent_unet import LatentUNet
from tests.models.inputs import inputs
from tests.models.parameters import anywhere

NET = LatentUNet(width=16, mults=(1, 2), num_blocks=1, attention_levels=(0,), num_heads=2)


@pytest.fixture(scope="module")
def params():
    return anywhere(NET, **given())


def given():
    made = inputs(NET, size=8)
    return {**made, "x_t": made["x_t"].repeat(2, axis=-1)[..., :4]}


@pytest.mark.parametrize(
    ("heads", "text", "count"),
    [(8, 768, 859520964), pytest.param(0, 1024, 865910724, marks=pytest.mark.slow)],
)
def test_stable_diffusion_has_its_number_of_parameters_and_a_rule_for_each(heads, text, count):
    net = LatentUNet(num_heads=heads)
    x, words = jnp.zeros((1, 8, 8, 4)), jnp.zeros((1, 77, text))
    made = jax.eval_shape(net.init, jax.random.key(0), x, jnp.zeros(1), words)["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(made)) == count
    for name, leaf in named_leaves(made).items():
        spec_of(name, leaf, net.sharding)


def test_the_output_depends_on_every_input_and_not_on_masked_text(params):
    apply = jax.jit(lambda given: NET.apply({"params": params}, **given))
    plain = given()
    before = apply(plain)
    assert before.shape == plain["x_t"].shape
    for name, value in plain.items():
        change = value[::-1] if value.ndim < 4 else value[:, ::-1]
        assert float(jnp.abs(apply({**plain, name: change}) - before).max()) > 1e-4, name
    other = jnp.where(plain["text_mask"][..., None], plain["text"], 50.0)
    np.testing.assert_allclose(apply({**plain, "text": other}), before, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["products", "full"])
def test_gradients_are_the_same_whatever_is_computed_again(params, remat):
    def loss(params, net):
        return jnp.mean(net.apply({"params": params}, **given()) ** 2)

    plain, again = (
        jax.jit(jax.grad(lambda p, net=net: loss(p, net)))(params)
        for net in (NET, NET.clone(remat=remat))
    )
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
