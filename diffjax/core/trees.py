"""Small helpers over nested dicts of arrays."""

import math
from collections.abc import Callable
from typing import Any

import jax


def path_name(path: tuple) -> str:
    """A tree path as `down_0/block_1/conv/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def map_named(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """`function(name, leaf)` over all leaves."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(path_name(path), leaf), tree
    )


def named_leaves(tree: Any) -> dict[str, Any]:
    """All leaves by name, in tree order."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def count(tree: Any) -> int:
    """How many numbers a tree of arrays (or of their shapes) holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
