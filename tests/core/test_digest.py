import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import digest
from diffjax.devices.mesh import make_mesh, state_sharding
from diffjax.models.layers.sharding import RULES

TREE = {"b": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "a": np.int32(7)}
POSITION = {"next_index": 5, "epoch": 1}


def test_the_digest_equals_one_computed_by_hand():
    """The leaves are hashed in the order of their names, each as dtype, shape and bytes."""
    a = hashlib.sha256(b"int32 ()\n" + (7).to_bytes(4, "little")).hexdigest()
    numbers = b"".join(np.float32(x).tobytes() for x in range(6))
    kernel = hashlib.sha256(b"float32 (2, 3)\n" + numbers).hexdigest()
    lines = f"a {a}\nb/kernel {kernel}\n" + json.dumps(POSITION, sort_keys=True)
    assert digest.digest_of(TREE, POSITION) == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        {"b": {"kernel": np.arange(6, dtype=np.float32).reshape(3, 2)}, "a": np.int32(7)},
        {"b": {"kernel": TREE["b"]["kernel"]}, "a": np.uint32(7)},
        {"b": {"bias": TREE["b"]["kernel"]}, "a": np.int32(7)},
        {"b": {"kernel": np.nextafter(TREE["b"]["kernel"], 9)}, "a": np.int32(7)},
        {"b": {"kernel": TREE["b"]["kernel"] * np.float32(-1) * 0}, "a": np.int32(7)},
    ],
)
def test_a_change_of_bits_dtype_shape_or_name_changes_the_digest(other):
    assert digest.digest_of(other, POSITION) != digest.digest_of(TREE, POSITION)


def test_the_digest_depends_on_the_position_but_not_on_the_order_of_keys():
    assert digest.digest_of(TREE, {}) != digest.digest_of(TREE, POSITION)
    turned = {"a": TREE["a"], "b": TREE["b"]}, {"epoch": 1, "next_index": 5}
    assert digest.digest_of(*turned) == digest.digest_of(TREE, POSITION)


def test_minus_zero_differs_from_zero_and_nan_equals_itself():
    of = lambda x: digest.digest_of({"x": np.float32(x)}, {})  # noqa: E731
    assert of(0.0) != of(-0.0)
    assert of(np.nan) == of(np.nan)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.bool_])
def test_the_digest_does_not_depend_on_the_sharding(dtype):
    tree = {"out/kernel": jnp.arange(64).reshape(8, 8).astype(dtype)}
    host = digest.digest_of(jax.tree.map(np.asarray, tree), {})
    for count in (1, 2, 8):
        mesh = make_mesh(devices=jax.devices()[:count], fsdp=count)
        placed = jax.device_put(tree, state_sharding(mesh, jax.eval_shape(lambda: tree), RULES))
        assert digest.digest_of(placed, {}) == host


def test_random_keys_are_hashed_by_their_integers():
    of = lambda seed: digest.digest_of({"key": jax.random.key(seed)}, {})  # noqa: E731
    assert of(1) == of(1) != of(2)
