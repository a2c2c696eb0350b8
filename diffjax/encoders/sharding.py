"""A T5 encoder on a mesh of devices: the shardings of its parameters, and its program."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Wrapped
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from diffjax.core import trees
from diffjax.core.trees import Params
from diffjax.devices.mesh import (
    BATCH_AXES,
    SPLIT_INPUTS,
    SPLIT_OUTPUTS,
    Rules,
    batch_sharding,
    spec_of,
)
from diffjax.models.t5 import (
    Block,
    RMSNorm,
    T5Config,
    T5Encoder,
    check_dtype,
    position_bias,
    shapes,
)

# The axis "tensor" splits heads and feed-forwards (Shoeybi et al. 2019) and the vocabulary; "fsdp"
# splits the other axis of every matrix.
RULES: Rules = (
    (r"embedding", SPLIT_INPUTS),
    (r"block_\d+/(attention/[qkv]|feed_forward/wi(_[01])?)/kernel", SPLIT_OUTPUTS),
    (r"block_\d+/(attention/o|feed_forward/wo)/kernel", SPLIT_INPUTS),
    (r"relative_bias", (None, None)),  # 32 numbers a head
    (r"(.*/)?scale", (None,)),
)


def params_sharding(mesh: Mesh, config: T5Config) -> dict:
    """A NamedSharding for every parameter of the encoder, by RULES.

    An axis whose size the mesh does not divide is not split, so any checkpoint fits any mesh.
    """

    def sharding_of(name: str, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        axes = zip(spec_of(name, leaf, RULES), leaf.shape, strict=True)
        splits = lambda axis, size: mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0  # noqa: E731
        spec = (axis if axis and splits(axis, size) else None for axis, size in axes)
        return NamedSharding(mesh, PartitionSpec(*spec))

    return trees.map_named(sharding_of, shapes(config))


def row_shards(mesh: Mesh | None) -> int:
    """The number of parts into which a mesh splits a batch; it must divide the batch size."""
    return 1 if mesh is None else mesh.size // mesh.shape["tensor"]


def compile_encoder(config: T5Config, dtype: DTypeLike, mesh: Mesh | None = None) -> Wrapped:
    """The jitted (params, ids [b l], mask [b l]) -> [b l d] of `T5Encoder(config, dtype)`.

    On a mesh, parameters have the shardings of `params_sharding`, and rows that of
    `mesh.batch_sharding`. A matrix is gathered over "fsdp" where it is used; over "tensor" each
    device computes with its own part.

    Raises:
      ValueError: the dtype is neither float32 nor bfloat16.
    """
    dtype = check_dtype(dtype)
    if mesh is None:
        alone = T5Encoder(config, dtype)
        return jax.jit(lambda params, ids, mask: alone.apply({"params": params}, ids, mask))
    rows, kept = batch_sharding(mesh), params_sharding(mesh, config)
    look_up = _look_up(kept["embedding"])
    model = T5Encoder(config, dtype, look_up)
    compiled = functools.partial(jax.jit, in_shardings=(kept, rows, rows), out_shardings=rows)
    if mesh.shape["fsdp"] > 1:
        return compiled(functools.partial(_scanned, config, dtype, look_up, kept["block_0"]))
    return compiled(lambda params, ids, mask: model.apply({"params": params}, ids, mask))


def _scanned(
    config: T5Config,
    dtype: DTypeLike,
    look_up: Callable[[Array, Array], Array],
    kept: dict,
    params: Params,
    ids: Int[Array, "b l"],
    mask: Bool[Array, "b l"],
) -> Float[Array, "b l d"]:
    """`T5Encoder` as a scan over its blocks; each block is gathered just before it is used.

    Without a scan, the compiler could gather all blocks at the start and keep them in memory.
    kept: the shardings of one block's parameters.
    """
    spread = lambda change: jax.tree.map(  # noqa: E731
        lambda s: NamedSharding(s.mesh, PartitionSpec(*change(s.spec))), kept
    )
    stacked_sharding = spread(lambda spec: (None, *spec))
    used_sharding = spread(lambda spec: (None if axis == "fsdp" else axis for axis in spec))
    constrain = jax.lax.with_sharding_constraint
    bias = position_bias(config, params["relative_bias"], mask.shape[1])

    def body(h: Float[Array, "b l d"], block: dict) -> tuple[Float[Array, "b l d"], None]:
        used = constrain(block, used_sharding)
        return Block(config, dtype).apply({"params": used}, h, bias, mask), None  # type: ignore[return-value]

    blocks = [params[f"block_{i}"] for i in range(config.num_layers)]
    stacked = constrain(jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks), stacked_sharding)
    h = look_up(params["embedding"], ids).astype(jnp.float32)
    h, _ = jax.lax.scan(body, h, stacked)
    h = RMSNorm(config.layer_norm_epsilon).apply({"params": params["final_norm"]}, h)  # type: ignore[assignment]
    return jnp.where(mask[..., None], h, 0.0).astype(dtype)


def _look_up(table_sharding: NamedSharding) -> Callable[[Array, Array], Array]:
    """(table [v d], ids [b l]) -> [b l d]; each device looks up in its own part of the table.

    The compiler by itself would gather the table, or the result for all rows.
    """
    vocabulary, width = table_sharding.spec

    def look_up_here(table: Float[Array, "v e"], ids: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        if width:  # an fsdp group looks up all its rows, each device in its columns
            ids = jax.lax.all_gather(ids, width, tiled=True)
        if vocabulary:  # one device of a tensor group has the row; the others add zeros
            ids = ids - jax.lax.axis_index(vocabulary) * table.shape[0]
        h = jnp.take(table, ids, axis=0, mode="fill", fill_value=0)
        if vocabulary:
            h = jax.lax.psum(jnp.where((ids < 0)[..., None], 0, h), vocabulary)
        return jax.lax.all_to_all(h, width, 0, 2, tiled=True) if width else h

    rows = PartitionSpec(BATCH_AXES)
    return jax.shard_map(
        look_up_here,
        mesh=table_sharding.mesh,
        in_specs=(table_sharding.spec, rows),
        out_specs=rows,
        check_vma=False,
    )
