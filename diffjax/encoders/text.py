"""Opens the text encoder that a name means: a T5, or with the prefix "clip:" a CLIP."""

import os

from jax.sharding import Mesh
from jax.typing import DTypeLike

from diffjax.encoders import t5
from diffjax.encoders.clip import encoder as clip
from diffjax.encoders.t5 import TextEncoder

__all__ = ["TextEncoder", "load_encoder"]


def load_encoder(
    path_or_name: str | os.PathLike,
    max_length: int = 96,
    dtype: DTypeLike | None = None,
    mesh: Mesh | None = None,
) -> TextEncoder:
    """The encoder of `t5.load_encoder`; "clip:NAME" is that of `clip.load_text_encoder`.

    Raises:
      ValueError: there is no such encoder, or it cannot be used so.
    """
    name = os.fspath(path_or_name)
    if name.startswith(clip.PREFIX):
        rest = name.removeprefix(clip.PREFIX)
        return clip.load_text_encoder(rest, max_length, dtype, mesh)
    return t5.load_encoder(name, max_length, dtype, mesh)
