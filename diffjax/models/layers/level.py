"""A level of a U-Net: blocks one after the other, or equal blocks as one scan."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.core import rng
from diffjax.core.trees import Params, PyTree
from diffjax.core.types import Image, PRNGKeys, Resized, TextMask
from diffjax.models.layers.attention import Attention
from diffjax.models.layers.blocks import PRODUCT, ResBlock
from diffjax.models.layers.convolve import Convolution

# Turns the stored parameters of a block into those that it computes with.
Unpack: TypeAlias = Callable[[Params], Params]
Remat: TypeAlias = Literal["none", "products", "full"]
Blocks = TypeVar("Blocks", bound=nn.Module)
# Which values inside a block are kept for the backward pass; the others are computed again.
KEPT: dict[str, Callable[..., bool] | None] = {
    # results of convolutions and projections; norms, activations and softmax are computed again
    "products": jax.checkpoint_policies.save_only_these_names(PRODUCT),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Block(nn.Module):
    """Concatenates the skip, if any; then a residual block; then attention, if any."""

    width: int
    resample: Literal["up", "down"] | None = None
    skip_conv: bool = False
    attention: Callable[..., Attention] | None = None  # called by each block to make its own
    convolution: Convolution = lax.conv_general_dilated
    dtype: DTypeLike = jnp.float32
    residual: Callable[..., ResBlock] = ResBlock  # called to make its own

    @nn.compact
    def __call__(
        self,
        h: Image,
        emb: Float[Array, "b e"],
        tokens: Float[Array, "b l t"] | None,
        mask: TextMask | None,
        skip: Resized | None = None,
        keys: PRNGKeys | None = None,
    ) -> Resized:
        """[b h w c] -> [b h' w' width]. keys: of the dropout; None for none."""
        if skip is not None:
            h = jnp.concatenate([h, skip], axis=-1)
        res = self.residual(
            self.width, self.resample, self.skip_conv, self.convolution, self.dtype, name="res"
        )
        h = res(h, emb, keys)
        return h if self.attention is None else self.attention(name="attention")(h, tokens, mask)


def is_block(params: PyTree) -> bool:
    """Whether these are the parameters of a block or of scanned blocks.

    A block of a U-Net has a part `res`, one of a transformer a part `pixels`, and one of a causal
    transformer a part `qkv`.
    """
    own = params if isinstance(params, Mapping) else ()
    return any(part in own for part in ("res", "pixels", "qkv"))


def block_class(remat: Remat, scanned: bool = False, unpack: Unpack | None = None) -> type[Block]:
    """The class `Block` with rematerialisation and `unpack`; see `wrapped`."""
    return wrapped(Block, remat, scanned, unpack)


def wrapped(
    block: type[Blocks], remat: Remat, scanned: bool = False, unpack: Unpack | None = None
) -> type[Blocks]:
    """The class of a block with rematerialisation and `unpack`.

    remat: which values the backward pass computes again; see KEPT.
    unpack: applied to the parameters of a block where they are used, for example to gather them
    from other devices. With remat, the backward pass applies it again, so its result is not kept.
    """
    if unpack is not None:
        block = nn.map_variables(block, "params", trans_in_fn=_over_collections(unpack))
    if remat == "none":
        return block
    # inside a scan the compiler cannot merge the repeated work with the forward pass anyway
    return nn.remat(block, policy=KEPT[remat], prevent_cse=not scanned)


def _over_collections(unpack: Unpack) -> Unpack:
    return lambda collections: {name: unpack(tree) for name, tree in collections.items()}


def run_blocks(
    h: Image,
    conditions: tuple[Float[Array, "b e"], Float[Array, "b l t"] | None, TextMask | None],
    *,
    name: str,
    first: int,
    num: int,
    skips: Sequence[Resized] | None = None,
    keys: PRNGKeys | None = None,
    scan: bool = False,
    remat: Remat = "none",
    unpack: Unpack | None = None,
    **fields: Any,
) -> tuple[Resized, list[Resized]]:
    """Run `num` blocks of equal shapes; returns (the last output, all outputs).

    To be called inside a compact module. The parameters are named NAME_I, I = first, first + 1 and
    so on; with `scan` they are stacked under NAME_FIRST_on (see `stacking`). conditions: embedding,
    tokens and mask of `Block`. skips: one for each block. keys: of the dropout; each block draws
    from a stream of its name. fields: of `Block`.
    """
    if num == 0:
        return h, []
    if not scan:
        outputs = []
        for i in range(num):
            own = f"{name}_{first + i}"
            block = block_class(remat, unpack=unpack)(**fields, name=own)
            h = block(h, *conditions, None if skips is None else skips[i], keys_of(keys, own))
            outputs.append(h)
        return h, outputs

    def body(block: Block, h: Image, each: tuple[Resized | None, PRNGKeys | None]):
        h = block(h, *conditions, *each)
        return h, h

    scanned = nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True}, length=num)
    stacked = None if skips is None else jnp.stack(skips)
    block = block_class(remat, scanned=True, unpack=unpack)(**fields, name=f"{name}_{first}_on")
    drawn = None
    if keys is not None:
        drawn = jnp.stack([rng.stream(keys, f"{name}_{first + i}") for i in range(num)])
    h, outputs = scanned(block, h, (stacked, drawn))
    return h, list(outputs)


def keys_of(keys: PRNGKeys | None, name: str) -> PRNGKeys | None:
    """The keys of the block of a name; None if there are none."""
    return None if keys is None else rng.stream(keys, name)
