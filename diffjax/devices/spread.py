"""How the work of a training step goes over the devices of a mesh."""

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
    """How `training.step.train_step` spreads its work: each device does its rows of the batch.

    `work(params, rows, gather=, all_rows=, my_rows=)` sees its own rows and its shards of the
    parameters. `gather` makes them whole over fsdp, and its transpose sums a gradient over fsdp
    and hands each device its shard. What work adds up in its rows therefore crosses the mesh once,
    at the end: over data where fsdp splits the leaf, over both where it does not. `all_rows` makes
    every device's rows of a column from a device's own, in order; `my_rows` says at which places
    a device's own stand among them.
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

        # tensor stays with the compiler, which knows where a split channel must be summed
        return jax.shard_map(
            here,
            mesh=mesh,
            in_specs=(by_hand, rows_spec),
            out_specs=(by_hand, rows_spec),
            axis_names=set(across) if mesh.shape["tensor"] > 1 else set(AXES),
            check_vma=False,
        )

    return spread_work
