"""Attention of pixels to pixels and to text."""

import functools
from typing import Any, Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core.types import Image, TextMask
from diffjax.models.layers.blocks import Norm, materialised, product


@functools.cache
def fastest_implementation(dtype: Any) -> Literal["cudnn"] | None:
    """cuDNN's fused attention where a masked product compiles and runs with it, else XLA's own.

    It exists for GPUs and half precision alone, and not in every version: hence the trial.
    """
    if jax.default_backend() != "gpu" or jnp.dtype(dtype).itemsize != 2:
        return None
    x, seen = jnp.ones((1, 64, 1, 64), dtype), jnp.ones((1, 1, 1, 64), bool)

    def trial(x):
        attended = jax.nn.dot_product_attention(x, x, x, mask=seen, implementation="cudnn")
        return jnp.sum(attended.astype(jnp.float32))

    try:
        jax.block_until_ready(jax.jit(jax.grad(trial))(x))
    except Exception:  # whatever cuDNN, its version or the driver has to say
        return None
    return "cudnn"


class Attention(nn.Module):
    """Multi-head attention from pixels, added to its input; it starts as the identity.

    kind "self": keys and values are the pixels' with the text's appended (Imagen, app. D.3.1,
    the form that it settled on). kind "cross": the text alone, as in the 1024 px network,
    which therefore runs at any size. Softmax in float32.

    num_heads heads of head_width; 0: as many as fill the channels.
    implementation: of `jax.nn.dot_product_attention`; None leaves it to XLA.
    """

    head_width: int
    kind: Literal["self", "cross"] = "self"
    num_heads: int = 0
    implementation: Literal["xla", "cudnn"] | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, h: Image, tokens: Float[Array, "b l t"] | None, mask: TextMask | None
    ) -> Image:
        """[b h w c] -> [b h w c]; without num_heads c must be a multiple of head_width."""
        height, _, channels = h.shape[1:]
        h = materialised(h)
        if not self.num_heads and channels % self.head_width:
            raise ValueError(f"{channels} channels are no multiple of head_width {self.head_width}")
        num_heads = self.num_heads or channels // self.head_width

        def project(x, name, num):
            out = nn.Dense(
                num * num_heads * self.head_width, use_bias=False, dtype=self.dtype, name=name
            )(x)
            heads = einops.rearrange(product(out), "b s (k d) -> b s k d", d=self.head_width)
            return jnp.split(heads, num, 2)

        pixels = einops.rearrange(Norm(name="norm")(h), "b h w c -> b (h w) c").astype(self.dtype)
        if self.kind == "self":
            query, key, value = project(pixels, "qkv", 3)
        else:
            (query,) = project(pixels, "q", 1)
            key = value = query[:, :0]
        seen = None
        if tokens is not None and mask is not None:
            seen = jnp.pad(mask, ((0, 0), (key.shape[1], 0)), constant_values=True)[:, None, None]
            text_key, text_value = project(tokens, "text_kv", 2)
            key = jnp.concatenate([key, text_key], axis=1)
            value = jnp.concatenate([value, text_value], axis=1)
        elif self.kind == "cross":
            raise ValueError('attention "cross" attends to text, and there is none')
        attended = jax.nn.dot_product_attention(
            query,
            key,
            value,
            mask=seen,
            implementation=self.implementation,
        )
        attended = product(einops.rearrange(attended, "b s k d -> b s (k d)"))
        out = nn.Dense(channels, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="out")(
            attended
        )
        return h + einops.rearrange(product(out), "b (h w) c -> b h w c", h=height)
