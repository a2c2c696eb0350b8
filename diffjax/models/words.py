"""The text transformer trained inside a network of pictures (Nichol et al. 2022, sec. 3)."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.core.types import TokenIds
from diffjax.devices.mesh import SPLIT_INPUTS, SPLIT_OUTPUTS, Rules
from diffjax.models.clip.sizes import Tower
from diffjax.models.clip.transformer import Transformer, norm
from diffjax.models.layers.level import Remat

# Of a place without a token.
NO_TOKEN = -1
SHARDING: Rules = (
    (r"(.*/)?words/blocks/.*/(qkv|up)/kernel", SPLIT_OUTPUTS),
    (r"(.*/)?words/blocks/.*/(attention_out|down)/kernel", SPLIT_INPUTS),
    (r"(.*/)?words/tokens", (None, "fsdp")),
    (r"(.*/)?words/(positions|padding)", (None,)),  # a vector for each place
    (r"(.*/)?last_token/kernel", (None, "fsdp")),
)


@dataclass(frozen=True)
class Words:
    """The sizes of the transformer. length: the places of a text, with or without a token."""

    tower: Tower
    vocabulary: int
    length: int


class TextTransformer(nn.Module):
    """Token ids -> a state for each place, after a last LayerNorm.

    A place without a token has a vector of its own, which is learned, so no place is masked: each
    sees all. heads_first: see `clip.transformer.Transformer`.
    """

    sizes: Words
    remat: Remat = "none"
    dtype: DTypeLike = jnp.float32
    heads_first: bool = False

    @nn.compact
    def __call__(self, ids: TokenIds) -> Float[Array, "b l d"]:
        """[b l], NO_TOKEN where there is none -> [b l d] in float32."""
        sizes, normal = self.sizes, nn.initializers.normal
        if ids.shape[1] != sizes.length:
            raise ValueError(f"{ids.shape[1]} places for tokens, want {sizes.length}")
        places = (sizes.length, sizes.tower.width)
        tokens = self.param("tokens", normal(0.02), (sizes.vocabulary, sizes.tower.width))
        h = jnp.take(tokens, jnp.maximum(ids, 0), axis=0)
        h = h + self.param("positions", normal(0.01), places)
        h = jnp.where((ids >= 0)[..., None], h, self.param("padding", normal(0.01), places))
        blocks = Transformer(
            sizes.tower, False, "gelu", self.remat, self.dtype, self.heads_first, name="blocks"
        )
        return norm("norm_out")(blocks(h.astype(jnp.float32)))
