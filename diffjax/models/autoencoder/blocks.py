"""The blocks of the autoencoder: residual and attention."""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from diffjax.core.types import Image, Resized
from diffjax.models.layers.blocks import Norm, mark_product, materialise
from diffjax.models.layers.convolve import Convolution
from diffjax.models.layers.dense import Dense
from diffjax.models.layers.heads import attend

EPSILON = 1e-6  # of the norms, whose `groups` are those of `blocks.Norm`


class ResBlock(nn.Module):
    """norm, silu, conv, norm, silu, conv, plus its input; the skip is 1 x 1 if widths differ."""

    width: int
    groups: int = 0
    convolution: Convolution = lax.conv_general_dilated
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Image) -> Resized:
        """[b h w c] -> [b h w width]."""
        conv = functools.partial(
            nn.Conv, self.width, conv_general_dilated=self.convolution, dtype=self.dtype
        )
        h = materialise(h)
        r = nn.silu(Norm(EPSILON, self.groups, name="norm_0")(h)).astype(self.dtype)
        r = mark_product(conv((3, 3), name="conv_0")(r))
        r = nn.silu(Norm(EPSILON, self.groups, name="norm_1")(r)).astype(self.dtype)
        r = mark_product(conv((3, 3), name="conv_1")(r))
        if h.shape[-1] != self.width:
            h = mark_product(conv((1, 1), name="skip")(h))
        return h + r


class PixelAttention(nn.Module):
    """Attention of one head from each pixel to all others, added to its input."""

    groups: int = 0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Image) -> Image:
        """[b h w c] -> [b h w c]. The softmax is in float32."""
        b, height, width, c = h.shape
        h = materialise(h)
        pixels = (
            Norm(EPSILON, self.groups, name="norm")(h)
            .reshape(b, height * width, c)
            .astype(self.dtype)
        )
        projected = mark_product(Dense(3 * c, dtype=self.dtype, name="qkv")(pixels))
        query, key, value = jnp.split(projected[:, :, None, :], 3, axis=-1)
        attended = attend(query, key, value, scale=1 / math.sqrt(c))
        out = Dense(c, dtype=self.dtype, name="out")(mark_product(attended[:, :, 0]))
        return h + mark_product(out).reshape(h.shape)
