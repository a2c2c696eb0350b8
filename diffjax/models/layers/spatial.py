"""A transformer on the pixels of a level: attention to each other, to the text, a feed-forward.

The spatial transformer of latent diffusion (Rombach et al. 2022, app. E.2.1).
"""

import math
from typing import Literal

import einops
import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.core.types import Image, Text, TextMask
from diffjax.models.layers.blocks import Norm, mark_product, materialise
from diffjax.models.layers.dense import Dense
from diffjax.models.layers.heads import attend

Tokens = Float[Array, "b n c"]
GROUP_EPS, EPS = 1e-6, 1e-5  # of the GroupNorm before the transformer, of its LayerNorms
WIDEST_FUSED = 128  # cuDNN's fused attention takes heads up to this width


class SpatialTransformer(nn.Module):
    """norm, a projection, `depth` blocks, a projection that starts at zero, plus its input.

    num_heads: of all attention; 0 means heads of `head_width`. groups: of the norm, 0 for as many
    as `blocks.num_groups` says. implementation: of `jax.nn.dot_product_attention`.
    """

    num_heads: int
    head_width: int = 64
    depth: int = 1
    groups: int = 0
    implementation: Literal["xla", "cudnn"] | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Image, text: Text | None, mask: TextMask | None) -> Image:
        """[b h w c] -> [b h w c]. Without text there is no attention to it."""
        height, channels = h.shape[1], h.shape[-1]
        h = materialise(h)
        normed = Norm(GROUP_EPS, self.groups, name="norm")(h).astype(self.dtype)
        tokens = einops.rearrange(normed, "b h w c -> b (h w) c")
        tokens = mark_product(Dense(channels, dtype=self.dtype, name="proj_in")(tokens))
        for i in range(self.depth):
            tokens = TransformerBlock(
                self.num_heads or max(channels // self.head_width, 1),
                self.implementation,
                self.dtype,
                name=f"block_{i}",
            )(tokens, text, mask)
        zero = nn.initializers.zeros
        tokens = Dense(channels, kernel_init=zero, dtype=self.dtype, name="proj_out")(tokens)
        return h + einops.rearrange(mark_product(tokens), "b (h w) c -> b h w c", h=height)


class TransformerBlock(nn.Module):
    """x + self(norm(x)), then x + cross(norm(x), text), then x + feed(norm(x))."""

    num_heads: int
    implementation: Literal["xla", "cudnn"] | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Tokens, text: Text | None, mask: TextMask | None) -> Tokens:
        """[b n c] -> [b n c]."""
        width = x.shape[-1]
        if width % self.num_heads:
            raise ValueError(f"{width} channels: not a multiple of num_heads {self.num_heads}")

        def norm(name: str) -> Tokens:
            return nn.LayerNorm(EPS, dtype=jnp.float32, name=name)(x).astype(self.dtype)

        attend = lambda name: MultiHead(  # noqa: E731
            self.num_heads, self.implementation, self.dtype, name=name
        )
        x = x + attend("self")(norm("norm_self"))
        if text is not None:
            x = x + attend("cross")(norm("norm_cross"), text.astype(self.dtype), mask)
        return x + GatedFeedForward(4 * width, self.dtype, name="feed")(norm("norm_feed"))


class MultiHead(nn.Module):
    """Attention of tokens to each other, or to a text. The softmax is in float32."""

    num_heads: int
    implementation: Literal["xla", "cudnn"] | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Tokens,
        text: Float[Array, "b k t"] | None = None,
        mask: TextMask | None = None,
    ) -> Tokens:
        """[b n c] -> [b n c]. mask: True at the tokens of the text that are seen; None for all."""
        width = x.shape[-1]

        def project(of: Array, name: str, num: int) -> list[Array]:
            made = Dense(num * width, use_bias=False, dtype=self.dtype, name=name)(of)
            made = mark_product(made)
            heads = einops.rearrange(made, "b l (n k d) -> n b l k d", n=num, k=self.num_heads)
            return list(heads)

        if text is None:
            query, key, value = project(x, "qkv", 3)
        else:
            (query,) = project(x, "q", 1)
            key, value = project(text, "text_kv", 2)
        fused = width // self.num_heads <= WIDEST_FUSED
        seen = attend(
            query,
            key,
            value,
            mask=None if mask is None else mask[:, None, None],
            scale=1 / math.sqrt(width // self.num_heads),
            implementation=self.implementation if fused else "xla",
        )
        seen = mark_product(einops.rearrange(seen, "b l k d -> b l (k d)"))
        return mark_product(Dense(width, dtype=self.dtype, name="out")(seen))


class GatedFeedForward(nn.Module):
    """dense(a gelu(b)), with a and b the halves of a dense layer: GEGLU (Shazeer 2020)."""

    hidden: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """[b n c] -> [b n c]."""
        both = mark_product(Dense(2 * self.hidden, dtype=self.dtype, name="dense_0")(x))
        kept, gate = jnp.split(both, 2, axis=-1)
        kept = kept * nn.gelu(gate, approximate=False)
        return mark_product(Dense(x.shape[-1], dtype=self.dtype, name="dense_1")(kept))
