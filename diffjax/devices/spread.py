"""Spreads the work of a training step over the devices of a mesh."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PyTree

from diffjax.core import trees
from diffjax.devices.mesh import AXES, BATCH_AXES, Rules, spec_of

Tree: TypeAlias = PyTree[Array]


def spread(
    mesh: Mesh, params_sharding: PyTree[NamedSharding], rules: Rules
) -> Callable[[Callable], Callable]:
    """Returns a decorator with which each device does a function's work on its rows of the batch.

    The function is `work(params, rows, gather=, all_rows=, my_rows=) -> (sums, out)`. It sees the
    rows and the parameter shards of one device, and the decorated function sums `sums` over all
    rows of the batch.

    gather(params) gives whole parameters from the shards of an fsdp group. Its transpose sums a
    gradient over fsdp and leaves each device its shard. A gradient therefore crosses the mesh
    once, after all rows are done: over data if fsdp splits the leaf, otherwise over both.
    all_rows(rows) gives the rows of all devices, in order.
    my_rows(count) gives the places of this device's `count` rows among them.
    """
    is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
    across = tuple(axis for axis in BATCH_AXES if mesh.shape[axis] > 1)
    by_hand = jax.tree.map(
        lambda s: PartitionSpec(*(axis if axis in across else None for axis in s.spec)),
        params_sharding,
    )
    rows_spec = PartitionSpec(across)

    def gather(params: Tree) -> Tree:
        def whole(name: str, leaf: Array) -> Array:
            for position, axis in enumerate(spec_of(name, leaf, rules)):
                if axis in across:
                    leaf = jax.lax.all_gather(leaf, axis, axis=position, tiled=True)
            return leaf

        return trees.map_named(whole, params)

    def reduce(sums: Tree) -> Tree:
        def crossed(spec: PartitionSpec, leaf: Array) -> Array:
            return jax.lax.psum(leaf, tuple(axis for axis in across if axis not in spec))

        return jax.tree.map(crossed, by_hand, sums, is_leaf=is_spec)

    def all_rows(rows: Array) -> Array:
        return jax.lax.all_gather(rows, across, axis=0, tiled=True)

    def my_rows(count: int) -> Int[Array, " b"]:
        return jax.lax.axis_index(across) * count + jnp.arange(count)

    def spread_work(work: Callable) -> Callable:
        if not across:
            return work

        def here(params: Tree, rows: Tree) -> tuple[Tree, Tree]:
            sums, out = work(params, rows, gather=gather, all_rows=all_rows, my_rows=my_rows)
            return reduce(sums), out

        # the compiler splits over tensor, since it knows where split channels must be summed
        return jax.shard_map(
            here,
            mesh=mesh,
            in_specs=(by_hand, rows_spec),
            out_specs=(by_hand, rows_spec),
            axis_names=set(across) if mesh.shape["tensor"] > 1 else set(AXES),
            check_vma=False,
        )

    return spread_work
