"""Parameters of scanned blocks, stacked, and of the same blocks one by one: both ways."""

import re
from typing import Any

import jax
import jax.numpy as jnp

STACK = re.compile(r"(.+)_(\d+)_on")


def unstack(params: Any) -> dict[str, Any]:
    """NAME_FIRST_on, with a leading axis of n, -> NAME_FIRST ... NAME_(FIRST + n - 1)."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        match = STACK.fullmatch(name)
        if not match:
            flat[name] = value
            continue
        prefix, first = match[1], int(match[2])
        for i in range(jax.tree.leaves(value)[0].shape[0]):
            flat[f"{prefix}_{first + i}"] = jax.tree.map(lambda x, i=i: x[i], value)
    return flat


def stack(params: Any, like: Any) -> dict[str, Any]:
    """The inverse of `unstack`: blocks are stacked where the tree `like` has them so.

    Raises:
      ValueError: names the first block that is missing.
    """
    left = dict(params)
    stacked: dict[str, Any] = {}
    for name, value in like.items():
        match = STACK.fullmatch(name)
        num = jax.tree.leaves(value)[0].shape[0] if match else 1
        names = [f"{match[1]}_{int(match[2]) + i}" for i in range(num)] if match else [name]
        for part in names:
            if part not in left:
                raise ValueError(f"params have no {part}, which {name} is to hold")
        parts = [left.pop(part) for part in names]
        stacked[name] = jax.tree.map(lambda *x: jnp.stack(x), *parts) if match else parts[0]
    if left:
        raise ValueError(f"params have {', '.join(left)}, for which there is no place")
    return stacked
