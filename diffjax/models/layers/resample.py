"""Changes of resolution by a convolution."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from diffjax.core.types import Image, Resized
from diffjax.models.layers.blocks import mark_product, upsample
from diffjax.models.layers.convolve import Convolution, after_doubling

# Of a picture with so many pixels, making the kernels of `after_doubling` takes longer than they
# save: 19 ms of a core at 512 channels, and 3 ms at 2 x 4 x 4 pixels.
FEW = 64


class Halve(nn.Module):
    """A 3 x 3 convolution with stride 2.

    around: it sees a zero on every side, as in PyTorch; else only below and to the right, as in
    TensorFlow.
    """

    convolution: Convolution = lax.conv_general_dilated
    dtype: DTypeLike = jnp.float32
    around: bool = False

    @nn.compact
    def __call__(self, h: Image) -> Resized:
        """[b h w c] -> [b h/2 w/2 c]."""
        padding = ((1, 1), (1, 1)) if self.around else ((0, 1), (0, 1))
        conv = nn.Conv(
            h.shape[-1], (3, 3), 2, padding=padding, conv_general_dilated=self.convolution,
            dtype=self.dtype, name="conv",
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
