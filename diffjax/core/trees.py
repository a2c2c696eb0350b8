"""Trees of arrays: their type, and the names of their leaves."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
from jaxtyping import PyTree

__all__ = ["Params", "PyTree", "map_named", "named_leaves", "num_values", "path_name"]

# The parameters of a network: nested dicts with arrays, or their shapes, for leaves.
Params: TypeAlias = Mapping[str, PyTree]


def path_name(path: tuple) -> str:
    """The path of a leaf as a name, such as `down_0/block_1/conv/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def map_named(function: Callable[[str, Any], object], tree: PyTree) -> PyTree:
    """The tree with each leaf replaced by `function(name, leaf)`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(path_name(path), leaf), tree
    )


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """All leaves by name, in the order of `jax.tree.leaves`."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def num_values(tree: PyTree) -> int:
    """The number of values in all arrays of a tree, which may also be shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
