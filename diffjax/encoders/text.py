"""Opens the text encoder that a name means: a T5, a CLIP, or a Stable Diffusion's."""

import os
from typing import TypeAlias

from jax.sharding import Mesh
from jax.typing import DTypeLike

from diffjax.encoders import t5
from diffjax.encoders.clip import encoder as clip
from diffjax.encoders.stable_diffusion import encoder as stable_diffusion
from diffjax.encoders.t5 import TextEncoder
from diffjax.encoders.tokens import TokenReader

__all__ = ["Reads", "TextEncoder", "TokenReader", "load_encoder"]

# What reads the prompts of stages: it embeds them, or a network embeds their tokens itself.
Reads: TypeAlias = TextEncoder | TokenReader


def load_encoder(
    path_or_name: str | os.PathLike,
    max_length: int = 96,
    dtype: DTypeLike | None = None,
    mesh: Mesh | None = None,
) -> TextEncoder:
    """The encoder of `t5.load_encoder`; "clip:NAME" is that of `clip.load_text_encoder`.

    "sd:PLACE" is that of a Stable Diffusion (`stable_diffusion.load`).

    Raises:
      ValueError: there is no such encoder, or it cannot be used so.
    """
    name = os.fspath(path_or_name)
    if name.startswith(clip.PREFIX):
        rest = name.removeprefix(clip.PREFIX)
        return clip.load_text_encoder(rest, max_length, dtype, mesh)
    if name.startswith(stable_diffusion.PREFIX):
        rest = name.removeprefix(stable_diffusion.PREFIX)
        return stable_diffusion.load(rest, max_length, dtype, mesh)
    return t5.load_encoder(name, max_length, dtype, mesh)
