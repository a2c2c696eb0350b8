"""The text encoder of a Stable Diffusion, as one of a stage."""

from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from diffjax.core import digest
from diffjax.core.json_types import JsonObject
from diffjax.core.trees import Params
from diffjax.devices import mesh as mesh_lib
from diffjax.encoders.stable_diffusion import checkpoint
from diffjax.encoders.stable_diffusion.checkpoint import Checkpoint
from diffjax.encoders.t5 import TextEncoder, default_dtype
from diffjax.models.t5 import check_dtype

# What a text encoder's name begins with if it is that of a Stable Diffusion.
PREFIX = "sd:"


def load(
    where: str, max_length: int, dtype: DTypeLike | None = None, mesh: Mesh | None = None
) -> TextEncoder:
    """The text encoder of a checkpoint in a folder or a file.

    Raises:
      ValueError: there is none, or its texts have another length.
    """
    if not where:
        raise ValueError(f"want {PREFIX}PLACE, a folder or a file of Stable Diffusion")
    one = checkpoint.load(Path(where).expanduser())
    if max_length != one.tokens.length:
        raise ValueError(f"its texts have {one.tokens.length} tokens, not {max_length}")
    return text_encoder(one, f"{PREFIX}{Path(where).name}", dtype, mesh)


def text_encoder(
    one: Checkpoint, name: str, dtype: DTypeLike | None = None, mesh: Mesh | None = None
) -> TextEncoder:
    """The states of all ids of a text, also of its padding; so the mask is True everywhere.

    The empty text is encoded like others. On a mesh, rows are split and every device holds all
    parameters. dtype: as in `t5.load_encoder`.
    """
    devices = [jax.local_devices()[0]] if mesh is None else list(mesh.devices.flat)
    used = check_dtype(default_dtype(devices[0].platform) if dtype is None else dtype)
    model = one.text.model.clone(dtype=used)

    def states(
        params: Params, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]
    ) -> Float[Array, "b l d"]:
        made = model.apply({"params": params}, ids)
        return made.astype(used)  # type: ignore[union-attr]

    apply = jax.jit(states)
    if mesh is not None:
        rows, whole = mesh_lib.batch_sharding(mesh), mesh_lib.replicated(mesh)
        apply = jax.jit(states, in_shardings=(whole, rows, rows), out_shardings=rows)
    whose: JsonObject = {
        "tokens": one.tokens.tokens.fingerprint,
        "pad": one.tokens.pad,
        "activation": model.activation,
        "skip": model.skip,
    }
    return TextEncoder(
        name=name,
        width=model.tower.width,
        max_length=min(one.tokens.length, model.length),
        fingerprint=digest.digest_of(one.text.params, whose),
        dtype=used,
        tokens=one.tokens,
        load=lambda: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), one.text.params),
        apply=apply,
        mesh=mesh,
        embeds_blank=True,
        rounds=False,
    )
