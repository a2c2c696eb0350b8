"""The classifier's pool, its gradient in bfloat16, and how its parameters are split."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from diffjax.core.trees import named_leaves
from diffjax.devices import mesh
from diffjax.models.classifier import SHARDING, Classifier
from diffjax.models.layers.pool import AttentionPool
from diffjax.tasks.critic import ClassifierCritic

SMALL = functools.partial(
    Classifier, width=16, mults=(1,), num_blocks=1, attention_levels=(0,), head_width=8, outputs=5
)


@functools.cache
def params():
    made = jax.jit(SMALL().init)(jax.random.key(0), jnp.zeros((1, 4, 4, 3)), jnp.zeros(1))
    leaves, tree = jax.tree.flatten(made["params"])  # those that start at zero would hide the rest
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.05 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def test_the_pool_is_attention_of_the_mean_pixel_to_all_places():
    h = jax.random.normal(jax.random.key(0), (2, 2, 3, 8))
    pool = AttentionPool(5, head_width=4)
    made = pool.init(jax.random.key(1), h)["params"]
    got = pool.apply({"params": made}, h)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), made)
    for row in range(2):
        pixels = np.asarray(h[row], np.float64).reshape(6, 8)
        tokens = np.vstack([pixels.mean(axis=0), pixels]) + p["positions"]
        query, key, value = np.split(tokens @ p["qkv"]["kernel"] + p["qkv"]["bias"], 3, axis=1)
        heads = []
        for k in range(2):
            part = slice(4 * k, 4 * k + 4)
            scores = np.exp(query[0, part] @ key[:, part].T / 2)
            heads.append(scores / scores.sum() @ value[:, part])
        wanted = np.concatenate(heads) @ p["out"]["kernel"] + p["out"]["bias"]
        np.testing.assert_allclose(got[row], wanted, atol=1e-5)


def test_the_pool_refuses_channels_that_heads_do_not_fill():
    with pytest.raises(ValueError, match="8 channels: not a multiple of head_width 3"):
        AttentionPool(5, head_width=3).init(jax.random.key(1), jnp.zeros((1, 2, 2, 8)))


@pytest.mark.slow
def test_a_gradient_in_bfloat16_is_that_of_float32_up_to_its_rounding():
    x = jax.random.normal(jax.random.key(2), (2, 4, 4, 3))
    told, level, weights = {"label": jnp.array([1, 4])}, jnp.array([0.0, 2.0]), params()

    def gradient(dtype):
        judge = ClassifierCritic(SMALL(dtype=dtype), 5)
        run = lambda x: jnp.sum(judge.log_prob(weights, told, x, level))  # noqa: E731
        return jax.jit(jax.grad(run))(x)

    exact, rounded = gradient(jnp.float32), gradient(jnp.bfloat16)
    assert exact.dtype == rounded.dtype == jnp.float32
    away = jnp.linalg.norm(exact - rounded) / jnp.linalg.norm(exact)
    assert 0 < away < 0.1


def test_every_parameter_has_a_rule_of_how_it_is_split():
    shapes = jax.eval_shape(lambda: params())
    specs = {name: mesh.spec_of(name, x, SHARDING) for name, x in named_leaves(shapes).items()}
    assert specs["pool/positions"] == PartitionSpec(None, None)
    split = ("pool/qkv/kernel", "pool/out/kernel", "down_0_0/res/conv_0/kernel", "stem/kernel")
    assert all("fsdp" in specs[name] for name in split)
