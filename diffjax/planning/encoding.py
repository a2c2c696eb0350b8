"""The program of a T5 encoder with shapes in place of arrays, ready to be compiled."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from diffjax.devices.mesh import batch_sharding, make_mesh
from diffjax.encoders import sharding
from diffjax.models.t5 import T5Config, T5Encoder, shapes
from diffjax.planning.shapes import Work, unplaced


def abstract_encoding(
    config: T5Config,
    devices: list[jax.Device],
    batch: int,
    length: int,
    *,
    fsdp: int = 1,
    tensor: int = 1,
    dtype: DTypeLike = jnp.bfloat16,
) -> Work:
    """The program that `load_encoder(..., mesh=...)` compiles for `batch` captions of `length`.

    length: in tokens. fsdp, tensor: axes of the mesh.

    Raises:
      ValueError: the mesh does not fit the devices, or the batch does not fit the mesh.
    """
    mesh = make_mesh(-1, fsdp, tensor, devices)
    shards = sharding.row_shards(mesh)
    if batch % shards:
        raise ValueError(f"batch={batch}, want a multiple of the mesh's {shards} row shards")
    places = sharding.params_sharding(mesh, config)
    params = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=place),
        shapes(config),
        places,
    )
    rows = batch // shards
    alone = jax.make_jaxpr(
        lambda params, ids, mask: T5Encoder(config, dtype).apply({"params": params}, ids, mask)
    )
    return Work(
        sharding.compile_encoder(config, dtype, mesh),
        (params, *caption_shapes(batch, length, batch_sharding(mesh))),
        batch,
        mesh,
        params,
        alone(unplaced(params), *caption_shapes(rows, length)),
        rows,
    )


def caption_shapes(
    count: int, length: int, place: jax.sharding.Sharding | None = None
) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """The shapes of token ids and their mask, both [count length]."""
    shape = (count, length)
    ids = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=place)
    return ids, jax.ShapeDtypeStruct(shape, jnp.bool_, sharding=place)
