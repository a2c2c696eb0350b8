"""Pools a picture to one vector by attention."""

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core.types import Image


class AttentionPool(nn.Module):
    """The answer of attention to the mean pixel (Radford et al. 2021, sec. 2.3; ADM's classifier).

    Each place has a position of its own, so the picture has one size. All is float32.
    """

    outputs: int
    head_width: int = 64

    @nn.compact
    def __call__(self, h: Image) -> Float[Array, "b k"]:
        """[b h w c] -> [b outputs]; c is a multiple of head_width."""
        width = h.shape[-1]
        if width % self.head_width:
            raise ValueError(f"{width} channels: not a multiple of head_width {self.head_width}")
        pixels = einops.rearrange(h.astype(jnp.float32), "b h w c -> b (h w) c")
        tokens = jnp.concatenate([jnp.mean(pixels, axis=1, keepdims=True), pixels], axis=1)
        first = nn.initializers.normal(width**-0.5)
        tokens = tokens + self.param("positions", first, (tokens.shape[1], width))
        made = nn.Dense(3 * width, dtype=jnp.float32, name="qkv")(tokens)
        query, key, value = einops.rearrange(
            made, "b l (n k d) -> n b l k d", n=3, d=self.head_width
        )
        seen = jax.nn.dot_product_attention(query[:, :1], key, value)
        seen = einops.rearrange(seen[:, 0], "b k d -> b (k d)")
        return nn.Dense(self.outputs, dtype=jnp.float32, name="out")(seen)
