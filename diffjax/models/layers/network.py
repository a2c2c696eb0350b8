"""What the networks that denoise have in common."""

from typing import Literal, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.core.types import Image, Resized
from diffjax.models.layers.level import Remat, Unpack

Hole: TypeAlias = Float[Array, "b h w 1"]


class DenoisingNetwork(nn.Module, kw_only=True):
    """A network with the fields that each of them has, which are given by name.

    num_classes: the number of classes; a label of num_classes means no class.
    out_channels: 0 for as many channels as the noisy picture has. A learned variance needs twice as
    many; a network that sees its last prediction beside the noisy picture needs half as many.
    remat: what the backward pass computes again; see `level.KEPT`. unpack: applied to the
    parameters of each block where they are used; see `level.block_class`.
    """

    num_classes: int = 0
    out_channels: int = 0
    remat: Remat = "none"
    unpack: Unpack | None = None
    attention_implementation: Literal["xla", "cudnn"] | None = None
    dtype: DTypeLike = jnp.float32


def beside_hole(x_t: Image, masked: Image | None, mask: Hole | None) -> Resized:
    """x_t with a picture that has a hole, and the hole as 1.0, as further channels if there are."""
    inputs = [x_t] if masked is None or mask is None else [x_t, masked, mask]
    return jnp.concatenate(inputs, axis=-1)
