"""Converts parameters of scanned blocks, which are stacked, to those of single blocks and back."""

import re

import jax
import jax.numpy as jnp

from diffjax.core.trees import Params, PyTree

STACK = re.compile(r"(.+)_(\d+)_on")


def unstack(params: Params) -> dict[str, PyTree]:
    """Split NAME_FIRST_on, with a leading axis of n, into NAME_FIRST ... NAME_(FIRST + n - 1)."""
    flat: dict[str, PyTree] = {}
    for name, value in params.items():
        match = STACK.fullmatch(name)
        if not match:
            flat[name] = value
            continue
        prefix, first = match[1], int(match[2])
        for i in range(jax.tree.leaves(value)[0].shape[0]):
            flat[f"{prefix}_{first + i}"] = jax.tree.map(lambda x, i=i: x[i], value)
    return flat


def stack(params: Params, like: Params) -> dict[str, PyTree]:
    """The inverse of `unstack`; the blocks that are stacked in `like` are stacked.

    Raises:
      ValueError: a block is missing or unknown; it is named.
    """
    left = dict(params)
    stacked: dict[str, PyTree] = {}
    for name, value in like.items():
        match = STACK.fullmatch(name)
        num = jax.tree.leaves(value)[0].shape[0] if match else 1
        names = [f"{match[1]}_{int(match[2]) + i}" for i in range(num)] if match else [name]
        for part in names:
            if part not in left:
                raise ValueError(f"params have no {part}, which {name} needs")
        parts = [left.pop(part) for part in names]
        stacked[name] = jax.tree.map(lambda *x: jnp.stack(x), *parts) if match else parts[0]
    if left:
        raise ValueError(f"params have {', '.join(left)}, which the network does not have")
    return stacked
