"""Low-rank changes of kernels: W' = W + alpha / r A B  (LoRA, Hu et al. 2021, sec. 4.1).

A kernel is a matrix from its inputs to its outputs, whatever axes it has: [i o], a convolution's
[h w i o], and with heads [i n d] or [n d o]. A is [i r] and B [r o]; the kernels of scanned blocks
have one more axis in front, and so have A and B.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffjax.core import rng, trees
from diffjax.core.trees import Params
from diffjax.core.types import PRNGKey
from diffjax.devices.mesh import Rules
from diffjax.models.layers.stacking import STACK

KERNEL, A, B = "kernel", "a", "b"
# Every device holds all of A and B: together they are a few hundredths of the kernels.
SHARDING: Rules = ((rf".*/{KERNEL}/[{A}{B}]", ()),)
# Kernels with heads whose inputs, not outputs, are the heads.
_FROM_HEADS = re.compile(r"(.*/)?(out|o|to_out|proj_out|out_proj|attend_out)(_\w+)?")


class Matrix(NamedTuple):
    """A kernel as a matrix, or as `stack` of them in one array; () for a single one."""

    stack: tuple[int, ...]
    inputs: int
    outputs: int


def matrix_of(name: str, shape: Sequence[int]) -> Matrix:
    """How the kernel with this path and shape is a matrix.

    Raises:
      ValueError: it is none.
    """
    stacked = int(any(STACK.fullmatch(part) for part in name.split("/")))
    stack, own = tuple(shape[:stacked]), tuple(shape[stacked:])
    if name.split("/")[-1] != KERNEL or len(own) not in (2, 3, 4):
        raise ValueError(f"{name} {tuple(shape)} is no matrix: want a kernel of 2 to 4 axes")
    first = {2: 1, 4: 3}.get(len(own))
    if first is None:
        first = 2 if _FROM_HEADS.fullmatch(name.rpartition("/")[0]) else 1
    return Matrix(stack, math.prod(own[:first]), math.prod(own[first:]))


def is_kernel(name: str, shape: Sequence[int]) -> bool:
    """Whether the array with this path and shape can be changed."""
    try:
        return matrix_of(name, shape) is not None
    except ValueError:
        return False


def init(key: PRNGKey, kernels: Mapping[str, Sequence[int]], rank: int) -> Params:
    """A from a Gaussian of deviation 1 / r, and B = 0, so that nothing changes before training.

    kernels: the shapes of the kernels by their paths. Below each path lie its A and B.
    """
    made = {}
    for name, shape in kernels.items():
        stack, inputs, outputs = matrix_of(name, shape)
        drawn = jax.random.normal(rng.stream(key, name), (*stack, inputs, rank))
        made[f"{name}/{A}"] = drawn / rank
        made[f"{name}/{B}"] = jnp.zeros((*stack, rank, outputs))
    return flax.traverse_util.unflatten_dict(made, sep="/")


def merged(params: Params, changes: Params, scale: float) -> Params:
    """W + scale A B for each kernel that has a change, and all other parameters as they are."""
    flat = trees.named_leaves(changes)

    def one(name: str, leaf: Array | np.ndarray) -> Array | np.ndarray:
        a, b = flat.get(f"{name}/{A}"), flat.get(f"{name}/{B}")
        return leaf if a is None or b is None else changed(jnp.asarray(leaf), a, b, scale)

    return trees.map_named(one, params)


def changed(
    kernel: Float[Array, "*axes"],
    a: Float[Array, "*stack i r"],
    b: Float[Array, "*stack r o"],
    scale: float,
) -> Float[Array, "*axes"]:
    """W + scale A B."""
    return kernel + (scale * (a @ b)).reshape(kernel.shape).astype(kernel.dtype)
