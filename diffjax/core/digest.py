"""A digest of a train state: two states with equal digests have equal bits on any mesh."""

import hashlib
import json

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.typing import ArrayLike

from diffjax.core.json_types import JsonObject
from diffjax.core.trees import PyTree, named_leaves


def digest_of(state: PyTree, data_position: JsonObject) -> str:
    """The sha256, in hex, of all arrays of `state` and of the position in the data.

    The name, dtype, shape and bytes of each leaf are hashed, in the order of the names. The devices
    that hold a leaf make no difference. Every process must call this; all get the same digest.
    """
    whole = hashlib.sha256()
    for name, digest in sorted(leaf_digests(state).items()):
        whole.update(f"{name} {digest}\n".encode())
    whole.update(json.dumps(data_position, sort_keys=True).encode())
    return whole.hexdigest()


def leaf_digests(state: PyTree) -> dict[str, str]:
    """The sha256 of each leaf's dtype, shape and bytes, by name: shows which leaves differ."""
    return {name: _array_digest(host_array(leaf)) for name, leaf in named_leaves(state).items()}


def host_array(leaf: ArrayLike) -> np.ndarray:
    """The whole array on this host, also if other processes hold parts of it.

    Random keys become the integers that they are made of.
    """
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def _array_digest(array: np.ndarray) -> str:
    one = hashlib.sha256(f"{array.dtype} {array.shape}\n".encode())
    one.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return one.hexdigest()
