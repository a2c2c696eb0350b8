"""W' = W + alpha / r A B for every kind of kernel, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models import lora
from diffjax.models.lora import Matrix

# A path, the shape of the kernel there, and how it is a matrix.
KERNELS = {
    "attention/qkv/kernel": ((3, 12), Matrix((), 3, 12)),
    "res/conv_0/kernel": ((3, 3, 2, 5), Matrix((), 18, 5)),
    "attention/query/kernel": ((6, 2, 4), Matrix((), 6, 8)),
    "attention/out/kernel": ((2, 4, 6), Matrix((), 8, 6)),
    "down_0_1_on/attention/qkv/kernel": ((4, 3, 6), Matrix((4,), 3, 6)),
    "block_0_on/attention/query/kernel": ((2, 6, 2, 4), Matrix((2,), 6, 8)),
}


def nested(flat):
    made = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        node = made
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return made


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_the_matrix_from_its_inputs_to_its_outputs(name):
    shape, wanted = KERNELS[name]
    assert lora.matrix_of(name, shape) == wanted


@pytest.mark.parametrize(
    ("name", "shape"),
    [("out/bias", (4,)), ("norm/scale", (4,)), ("table/embedding", (4, 2)), ("x/kernel", (4,))],
)
def test_what_is_no_kernel_is_no_matrix(name, shape):
    assert not lora.is_kernel(name, shape)


def test_the_merged_kernels_are_those_of_numpy_and_nothing_else_changes():
    random = np.random.default_rng(0)
    shapes = {name: shape for name, (shape, _) in KERNELS.items()}
    flat = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    flat["attention/out/bias"] = random.standard_normal(6, np.float32)
    flat["other/kernel"] = random.standard_normal((3, 3), np.float32)
    changes = lora.init(jax.random.key(0), shapes, 2)
    changes = jax.tree.map(lambda x: jnp.asarray(random.standard_normal(x.shape), x.dtype), changes)
    made = lora.merged(nested(flat), changes, 0.75)
    for name, leaf in flat.items():
        node, low = made, changes
        for part in name.split("/"):
            node, low = node[part], (low or {}).get(part)
        if low is None:
            assert node is leaf
            continue
        a, b = np.asarray(low["a"], np.float64), np.asarray(low["b"], np.float64)
        stack = KERNELS[name][1].stack
        pairs = zip(a, b, strict=True) if stack else [(a, b)]
        added = np.stack([0.75 * x @ y for x, y in pairs]).reshape(leaf.shape)
        np.testing.assert_allclose(node, leaf + added, atol=1e-5)


def test_a_new_change_is_none_and_its_a_is_a_gaussian_of_deviation_one_over_the_rank():
    shapes = {"down/qkv/kernel": (400, 30), "up/qkv/kernel": (400, 30)}
    changes = lora.init(jax.random.key(3), shapes, 8)
    params = {name: {"qkv": {"kernel": jnp.ones((400, 30))}} for name in ("down", "up")}
    made = lora.merged(params, changes, 1.0)
    np.testing.assert_array_equal(made["up"]["qkv"]["kernel"], 1.0)
    down, up = (np.asarray(changes[name]["qkv"]["kernel"]["a"]) for name in ("down", "up"))
    assert np.std(down) == pytest.approx(1 / 8, rel=0.1)  # 3,200 numbers: 1.3 % by chance
    assert abs(np.mean(down * up)) < 1e-3  # drawn independently
