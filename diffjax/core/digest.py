"""One number for a whole train state: equal digests, equal bits, whatever the mesh."""

import hashlib
import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from diffjax.core.trees import named_leaves


def digest_of(state: Any, data_position: dict) -> str:
    """sha256, in hex, over all arrays of `state` and the position of the data.

    The leaves count by name, dtype, shape and bytes, in the order of their names; not by where
    they lie. Every process has to call this, and all get the same.
    """
    whole = hashlib.sha256()
    for name, digest in sorted(leaf_digests(state).items()):
        whole.update(f"{name} {digest}\n".encode())
    whole.update(json.dumps(data_position, sort_keys=True).encode())
    return whole.hexdigest()


def leaf_digests(state: Any) -> dict[str, str]:
    """sha256 of each leaf's dtype, shape and bytes, by name: says which arrays differ."""
    return {name: _of_array(host_array(leaf)) for name, leaf in named_leaves(state).items()}


def host_array(leaf: Any) -> np.ndarray:
    """The whole array on this host, whichever processes hold its parts; random keys as numbers."""
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def _of_array(array: np.ndarray) -> str:
    one = hashlib.sha256(f"{array.dtype} {array.shape}\n".encode())
    one.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return one.hexdigest()
