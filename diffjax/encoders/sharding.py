"""A T5 encoder over a mesh: where its parameters lie, and its program."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from diffjax.core import trees
from diffjax.devices.mesh import BATCH_AXES, INTO, OUT_OF, Rules, batch_sharding, spec_of
from diffjax.models.t5 import (
    Block,
    RMSNorm,
    T5Config,
    T5Encoder,
    checked_dtype,
    position_bias,
    shapes,
)

# Tensor splits heads and feed-forwards (Shoeybi et al. 2019) and the
# vocabulary, fsdp the other axis of every matrix.
RULES: Rules = (
    (r"embedding", OUT_OF),
    (r"block_\d+/(attention/[qkv]|feed_forward/wi(_[01])?)/kernel", INTO),
    (r"block_\d+/(attention/o|feed_forward/wo)/kernel", OUT_OF),
    (r"relative_bias", (None, None)),  # 32 numbers a head
    (r"(.*/)?scale", (None,)),
)


def params_sharding(mesh: Mesh, config: T5Config) -> dict:
    """A NamedSharding for every parameter of the encoder, by RULES.

    An axis that the mesh's does not divide stays whole, so any checkpoint fits any mesh.
    """

    def place(name: str, leaf: Any) -> NamedSharding:
        axes = zip(spec_of(name, leaf, RULES), leaf.shape, strict=True)
        splits = lambda axis, size: mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0  # noqa: E731
        spec = (axis if axis and splits(axis, size) else None for axis, size in axes)
        return NamedSharding(mesh, PartitionSpec(*spec))

    return trees.map_named(place, shapes(config))


def row_shards(mesh: Mesh | None) -> int:
    """In how many parts a mesh splits the rows of a batch, which must be a multiple of it."""
    return 1 if mesh is None else mesh.size // mesh.shape["tensor"]


def compiled(config: T5Config, dtype: DTypeLike, mesh: Mesh | None = None) -> Any:
    """The jitted (params, ids [b l], mask [b l]) -> [b l d] of `T5Encoder(config, dtype)`.

    On a mesh, parameters lie as `params_sharding` says and rows as `mesh.batch_sharding`. A
    matrix is gathered over fsdp where it is used, and each device works with its tensor share.

    Raises:
      ValueError: a dtype that is neither float32 nor bfloat16.
    """
    dtype = checked_dtype(dtype)
    if mesh is None:
        alone = T5Encoder(config, dtype)
        return jax.jit(lambda params, ids, mask: alone.apply({"params": params}, ids, mask))
    rows, kept = batch_sharding(mesh), params_sharding(mesh, config)
    look_up = _look_up(kept["embedding"])
    model = T5Encoder(config, dtype, look_up)
    apply: Any = lambda params, ids, mask: model.apply({"params": params}, ids, mask)  # noqa: E731
    if mesh.shape["fsdp"] > 1:
        apply = functools.partial(_scanned, config, dtype, look_up, kept["block_0"])
    return jax.jit(apply, in_shardings=(kept, rows, rows), out_shardings=rows)


def _scanned(
    config: T5Config,
    dtype: DTypeLike,
    look_up: Callable[[Array, Array], Array],
    kept: dict,
    params: dict,
    ids: Int[Array, "b l"],
    mask: Bool[Array, "b l"],
) -> Float[Array, "b l d"]:
    """`T5Encoder` as a scan over its blocks, of which each is gathered when its turn comes.

    Written out one by one, the compiler could gather all of them at the start and hold them.
    kept: where a block's parameters lie.
    """
    spread = lambda change: jax.tree.map(  # noqa: E731
        lambda s: NamedSharding(s.mesh, PartitionSpec(*change(s.spec))), kept
    )
    stacked_so = spread(lambda spec: (None, *spec))
    used_so = spread(lambda spec: (None if axis == "fsdp" else axis for axis in spec))
    constrain = jax.lax.with_sharding_constraint
    bias = position_bias(config, params["relative_bias"], mask.shape[1])

    def body(h: Float[Array, "b l d"], block: dict) -> tuple[Float[Array, "b l d"], None]:
        used = constrain(block, used_so)
        return Block(config, dtype).apply({"params": used}, h, bias, mask), None  # type: ignore[return-value]

    blocks = [params[f"block_{i}"] for i in range(config.num_layers)]
    stacked = constrain(jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks), stacked_so)
    h = look_up(params["embedding"], ids).astype(jnp.float32)
    h, _ = jax.lax.scan(body, h, stacked)
    h = RMSNorm(config.layer_norm_epsilon).apply({"params": params["final_norm"]}, h)  # type: ignore[assignment]
    return jnp.where(mask[..., None], h, 0.0).astype(dtype)


def _look_up(table_sharding: NamedSharding) -> Callable[[Array, Array], Array]:
    """(table [v d], ids [b l]) -> [b l d], where each device reads its own part of the table.

    Left to itself the compiler would gather the table, or the answer for all rows.
    """
    vocabulary, width = table_sharding.spec

    def here(table: Float[Array, "v e"], ids: Int[Array, "b l"]) -> Float[Array, "b l d"]:
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
        here,
        mesh=table_sharding.mesh,
        in_specs=(table_sharding.spec, rows),
        out_specs=rows,
        check_vma=False,
    )
