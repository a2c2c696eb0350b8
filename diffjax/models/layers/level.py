"""A level of a U-Net: blocks in a row, each for itself or, where they are equal, as one scan."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from diffjax.core.types import Image, Resized, TextMask
from diffjax.models.layers.attention import Attention
from diffjax.models.layers.blocks import PRODUCT, ResBlock
from diffjax.models.layers.convolve import Convolution

Unpack: TypeAlias = Callable[[Any], Any]
Remat: TypeAlias = Literal["none", "products", "full"]
# What of a block's inside is kept for the backward pass; the rest is computed again.
KEPT: dict[str, Callable[..., bool] | None] = {
    # all convolutions and projections: only norms, activations and softmax are computed again
    "products": jax.checkpoint_policies.save_only_these_names(PRODUCT),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Block(nn.Module):
    """A skip joined on channels, a residual block, attention; skip and attention where given."""

    width: int
    resample: Literal["up", "down"] | None = None
    skip_conv: bool = False
    attention: Callable[..., Attention] | None = None  # a maker: every block has its own
    convolution: Convolution = lax.conv_general_dilated
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        h: Image,
        emb: Float[Array, "b e"],
        tokens: Float[Array, "b l t"] | None,
        mask: TextMask | None,
        skip: Resized | None = None,
    ) -> Resized:
        """[b h w c] -> [b h' w' width]."""
        if skip is not None:
            h = jnp.concatenate([h, skip], axis=-1)
        res = ResBlock(
            self.width, self.resample, self.skip_conv, self.convolution, self.dtype, name="res"
        )
        h = res(h, emb)
        return h if self.attention is None else self.attention(name="attention")(h, tokens, mask)


def is_block(params: Any) -> bool:
    """Whether these are the parameters of a block, or of scanned ones."""
    return "res" in params


def block_class(remat: Remat, scanned: bool = False, unpack: Unpack | None = None) -> type[Block]:
    """`Block`, made to keep for the backward pass what `remat` says.

    unpack: what to do with a block's parameters where it uses them, such as gathering them from
    other devices; with remat the backward pass does it again, and keeps none of the result.
    """
    block = Block
    if unpack is not None:
        block = nn.map_variables(Block, "params", trans_in_fn=_over_collections(unpack))
    if remat == "none":
        return block
    # inside a scan nothing can be merged with the forward pass anyway
    return nn.remat(block, policy=KEPT[remat], prevent_cse=not scanned)


def _over_collections(unpack: Unpack) -> Unpack:
    return lambda collections: {name: unpack(tree) for name, tree in collections.items()}


def run(
    h: Image,
    arguments: tuple[Any, Any, Any],
    *,
    name: str,
    first: int,
    num: int,
    skips: Sequence[Resized] | None = None,
    scan: bool = False,
    remat: Remat = "none",
    unpack: Unpack | None = None,
    **fields: Any,
) -> tuple[Resized, list[Resized]]:
    """`num` blocks of equal shapes after each other: the last output, and all of them.

    Called inside a compact module. Parameters lie under NAME_I, I = first, first + 1 ..., or, if
    scanned, stacked under NAME_FIRST_on: see `stacking`. skips: one for each block.
    """
    if num == 0:
        return h, []
    if not scan:
        outputs = []
        for i in range(num):
            block = block_class(remat, unpack=unpack)(**fields, name=f"{name}_{first + i}")
            h = block(h, *arguments, None if skips is None else skips[i])
            outputs.append(h)
        return h, outputs

    def body(block: Block, h: Image, skip: Resized | None):
        h = block(h, *arguments, skip)
        return h, h

    scanned = nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True}, length=num)
    stacked = None if skips is None else jnp.stack(skips)
    block = block_class(remat, scanned=True, unpack=unpack)(**fields, name=f"{name}_{first}_on")
    h, outputs = scanned(block, h, stacked)
    return h, list(outputs)
