"""Attention from pixels to pixels and to text."""

import functools
from typing import Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.core.types import Image, TextMask
from diffjax.models.layers.blocks import Norm, mark_product, materialise


@functools.cache
def fastest_implementation(dtype: DTypeLike) -> Literal["cudnn"] | None:
    """cuDNN's fused attention if it works here, else None, which leaves the choice to XLA.

    cuDNN's exists only for GPUs and half precision, and not in every version, so a small masked
    attention is compiled and run to find out.
    """
    if jax.default_backend() != "gpu" or jnp.dtype(dtype).itemsize != 2:
        return None
    x, seen = jnp.ones((1, 64, 1, 64), dtype), jnp.ones((1, 1, 1, 64), bool)

    def trial(x):
        attended = jax.nn.dot_product_attention(x, x, x, mask=seen, implementation="cudnn")
        return jnp.sum(attended.astype(jnp.float32))

    try:
        jax.block_until_ready(jax.jit(jax.grad(trial))(x))
    except Exception:  # cuDNN and the driver raise many types of errors
        return None
    return "cudnn"


class Attention(nn.Module):
    """Multi-head attention from pixels, added to its input; before training it is the identity.

    kind: with "self", keys and values come from the pixels and the text (Imagen, app. D.3.1); with
    "cross" from the text only, as in the 1024 px network, which therefore runs at any size.
    num_heads: the number of heads of size `head_width`; 0 means channels / head_width. head_width:
    0 means channels / num_heads. groups, eps: of the norm. bias: queries, keys and values have one.
    heads_first: the outputs of `qkv` are those of one head after another, and not all queries, then
    all keys, then all values; it changes what the numbers of a checkpoint mean, not the function.
    implementation: of `jax.nn.dot_product_attention`; None leaves the choice to XLA.

    The softmax is in float32.
    """

    head_width: int
    kind: Literal["self", "cross"] = "self"
    num_heads: int = 0
    implementation: Literal["xla", "cudnn"] | None = None
    dtype: DTypeLike = jnp.float32
    groups: int = 0
    eps: float = 1e-5
    bias: bool = False
    heads_first: bool = False

    @nn.compact
    def __call__(
        self, h: Image, tokens: Float[Array, "b l t"] | None, mask: TextMask | None
    ) -> Image:
        """[b h w c] -> [b h w c]; if num_heads is 0, c must be a multiple of head_width.

        mask: True where a token is seen; None: all are.
        """
        height, _, channels = h.shape[1:]
        h = materialise(h)
        if not self.num_heads and channels % self.head_width:
            raise ValueError(f"{channels} channels: not a multiple of head_width {self.head_width}")
        if not self.head_width and channels % self.num_heads:
            raise ValueError(f"{channels} channels: not a multiple of num_heads {self.num_heads}")
        num_heads = self.num_heads or channels // self.head_width
        head_width = self.head_width or channels // num_heads

        def project(x, name, num):
            out = nn.Dense(
                num * num_heads * head_width, use_bias=self.bias, dtype=self.dtype, name=name
            )(x)
            if self.heads_first:
                order = "b s (k n d) -> n b s k d"
                return list(einops.rearrange(mark_product(out), order, n=num, d=head_width))
            heads = einops.rearrange(mark_product(out), "b s (k d) -> b s k d", d=head_width)
            return jnp.split(heads, num, 2)

        pixels = einops.rearrange(
            Norm(self.eps, self.groups, name="norm")(h), "b h w c -> b (h w) c"
        )
        pixels = pixels.astype(self.dtype)
        if self.kind == "self":
            query, key, value = project(pixels, "qkv", 3)
        else:
            (query,) = project(pixels, "q", 1)
            key = value = query[:, :0]
        seen = None
        if tokens is not None:
            if mask is not None:
                seen = jnp.pad(mask, ((0, 0), (key.shape[1], 0)), constant_values=True)
                seen = seen[:, None, None]
            text_key, text_value = project(tokens, "text_kv", 2)
            key = jnp.concatenate([key, text_key], axis=1)
            value = jnp.concatenate([value, text_value], axis=1)
        elif self.kind == "cross":
            raise ValueError('attention "cross" needs text, and there is none')
        attended = jax.nn.dot_product_attention(
            query,
            key,
            value,
            mask=seen,
            implementation=self.implementation,
        )
        attended = mark_product(einops.rearrange(attended, "b s k d -> b s (k d)"))
        out = nn.Dense(channels, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="out")(
            attended
        )
        return h + einops.rearrange(mark_product(out), "b (h w) c -> b h w c", h=height)
