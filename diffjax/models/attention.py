"""Attention of pixels to pixels and to text."""

from typing import Any, Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.models.blocks import Norm
from diffjax.types import Image, TextMask


class Attention(nn.Module):
    """Multi-head attention from pixels, added to its input; it starts as the identity.

    kind "self": keys and values are the pixels' with the text's appended (Imagen, app. D.3.1,
    the form that it settled on). kind "cross": the text alone, as in the 1024 px network,
    which therefore runs at any size. Softmax in float32.
    """

    head_width: int
    kind: Literal["self", "cross"] = "self"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h: Image, tokens: Float[Array, "b l t"], mask: TextMask) -> Image:
        """[b h w c] -> [b h w c]; c must be a multiple of head_width."""
        height, width, channels = h.shape[1:]
        if channels % self.head_width:
            raise ValueError(f"{channels} channels are no multiple of head_width {self.head_width}")
        num_heads = channels // self.head_width

        def project(x, name, num):
            out = nn.Dense(num * channels, use_bias=False, dtype=self.dtype, name=name)(x)
            return jnp.split(
                einops.rearrange(out, "b s (k d) -> b s k d", d=self.head_width), num, 2
            )

        pixels = einops.rearrange(Norm(name="norm")(h), "b h w c -> b (h w) c").astype(self.dtype)
        key, value = project(tokens, "text_kv", 2)
        if self.kind == "self":
            query, pixel_key, pixel_value = project(pixels, "qkv", 3)
            key = jnp.concatenate([pixel_key, key], axis=1)
            value = jnp.concatenate([pixel_value, value], axis=1)
            mask = jnp.pad(mask, ((0, 0), (height * width, 0)), constant_values=True)
        else:
            (query,) = project(pixels, "q", 1)
        attended = jax.nn.dot_product_attention(query, key, value, mask=mask[:, None, None, :])
        attended = einops.rearrange(attended, "b s k d -> b s (k d)", k=num_heads)
        out = nn.Dense(channels, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="out")(
            attended
        )
        return h + einops.rearrange(out, "b (h w) c -> b h w c", h=height)
