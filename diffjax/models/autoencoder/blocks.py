"""The blocks of the autoencoder: residual, attention, and the changes of resolution."""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from diffjax.core.types import Image, Resized
from diffjax.models.layers.blocks import Norm, mark_product, materialise, upsample
from diffjax.models.layers.convolve import Convolution, after_doubling
from diffjax.models.layers.dense import Dense
from diffjax.models.layers.heads import attend

EPSILON = 1e-6  # of the norms, whose `groups` are those of `blocks.Norm`
# Of a picture with so many pixels, making the kernels of `after_doubling` takes longer than they
# save: 19 ms of a core at 512 channels, and 3 ms at 2 x 4 x 4 pixels.
FEW = 64


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


class Halve(nn.Module):
    """A 3 x 3 convolution with stride 2 that sees a zero below and to the right."""

    convolution: Convolution = lax.conv_general_dilated
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Image) -> Resized:
        """[b h w c] -> [b h/2 w/2 c]."""
        conv = nn.Conv(
            h.shape[-1], (3, 3), 2, padding=((0, 1), (0, 1)),
            conv_general_dilated=self.convolution, dtype=self.dtype, name="conv",
        )  # fmt: skip
        return mark_product(conv(h))


class Double(nn.Module):
    """Each pixel four times, and a 3 x 3 convolution."""

    convolution: Convolution = lax.conv_general_dilated
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Image) -> Resized:
        """[b h w c] -> [b 2h 2w c]."""
        both = self.convolution
        if h.shape[1] * h.shape[2] > FEW:
            both = functools.partial(after_doubling, convolution=self.convolution)
        else:
            h = upsample(h)
        conv = nn.Conv(
            h.shape[-1], (3, 3), conv_general_dilated=both, dtype=self.dtype, name="conv"
        )
        return mark_product(conv(h))
