"""The causal transformer of a prior: what its places see, and its size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import trees
from diffjax.models.layers.causal import CausalBlock
from diffjax.models.prior import Prior

KEY = jax.random.key(0)
NETWORK = Prior(width=16, num_blocks=2, num_heads=2, length=6)


@functools.cache
def moved():
    """Parameters that are not those of a new network."""
    made = jax.jit(NETWORK.init)(KEY, *given().values())["params"]
    random = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + 0.1 * random.standard_normal(p.shape, np.float32), made)


def given():
    random = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(random.standard_normal(shape), jnp.float32)  # noqa: E731
    return {
        "x_t": normal(2, 4),
        "logsnr_t": normal(2),
        "text": normal(2, 6, 3),
        "text_mask": jnp.arange(6) < jnp.array([[6], [2]]),
        "text_vector": normal(2, 5),
    }


@jax.jit
def answer(**inputs):
    return NETWORK.apply({"params": moved()}, **inputs)


def test_padding_of_a_text_changes_nothing():
    inputs = given()
    longer = {**inputs, "text": inputs["text"].at[1, 2:].add(1.0)}
    np.testing.assert_array_equal(answer(**inputs), answer(**longer))


@pytest.mark.parametrize("name", ["x_t", "logsnr_t", "text", "text_mask", "text_vector"])
def test_the_answer_depends_on_each_input(name):
    inputs = given()
    changed = inputs[name].at[1].set(inputs[name][0])
    difference = np.abs(answer(**inputs) - answer(**{**inputs, name: changed})).max(axis=1)
    assert difference[0] == 0
    assert difference[1] > 1e-4


def test_a_place_after_the_other_sees_what_it_sees_in_the_whole_sequence():
    random = np.random.default_rng(0)
    h = jnp.asarray(random.standard_normal((2, 7, 16)), jnp.float32)
    seen = jnp.asarray([[True] * 7, [True, True, False, True, True, True, True]])
    block = CausalBlock(16, 2, 1)
    params = jax.jit(block.init)(KEY, h)
    whole = jax.jit(block.apply)(params, h, seen)
    begin = functools.partial(block.apply, params, method="begin")
    made, kept = jax.jit(begin, static_argnums=2)(h[:, :4], seen[:, :4], 7)
    parts = [made]
    go_on = jax.jit(functools.partial(block.apply, params, method="go_on"))
    for place in range(4, 7):
        so_far = seen & (jnp.arange(7) <= place)
        made, kept = go_on(h[:, place : place + 1], so_far, kept, jnp.int32(place))
        parts.append(made)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, atol=1e-5)


def test_the_blocks_of_the_paper_have_as_many_parameters_as_it_says():
    network = Prior()  # table 3: 24 blocks of width 2048, 256 tokens
    shapes = jax.eval_shape(
        network.init, KEY, jnp.zeros((1, 1024)), jnp.zeros(1), jnp.zeros((1, 256, 1024)),
        jnp.ones((1, 256), bool), jnp.zeros((1, 1024)),
    )["params"]  # fmt: skip
    blocks = {name: x for name, x in shapes.items() if name.startswith("block")}
    width = 2048
    assert trees.num_values(blocks) == 24 * (12 * width**2 + 13 * width)
    assert round(trees.num_values(blocks) / 1e9, 3) == 1.209  # 1.208 of kernels
