"""The residual block, its norm, and the changes of resolution."""

import functools
import math
from typing import Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from diffjax.core.types import Image, PRNGKeys, Resized
from diffjax.models.layers.convolve import Convolution, after_doubling

# Marks the results of convolutions and projections, which are worth keeping for the backward pass.
PRODUCT = "product"


def mark_product(h: Array) -> Array:
    """Return h, marked as a product that rematerialisation may keep."""
    return checkpoint_name(h, PRODUCT)


def materialise(h: Array) -> Array:
    """Return h; on a CPU, h and its gradient are written to memory here.

    Otherwise XLA for CPUs computes the gradient of a block again for each of its uses, together
    with the sums of all later blocks.
    """
    return lax.platform_dependent(h, cpu=lax.optimization_barrier, default=lambda h: h)


def num_groups(channels: int) -> int:
    """At most 32 groups of at least 4 channels: the usual 32, but fewer in small networks."""
    return math.gcd(32, max(1, channels // 4))


class Norm(nn.Module):
    """GroupNorm with learned gain and bias, optionally scaled and shifted per example.

    Statistics and result are float32. Gain, statistics, scale and shift are combined to one factor
    and one offset per channel, so that the picture is read twice and written once. groups: their
    number; 0 for `num_groups` of the channels.
    """

    eps: float = 1e-5
    groups: int = 0

    @nn.compact
    def __call__(
        self,
        h: Image,
        scale: Float[Array, "b c"] | None = None,
        shift: Float[Array, "b c"] | None = None,
    ) -> Image:
        """norm(h) (1 + scale) + shift."""
        channels = h.shape[-1]
        groups = self.groups or num_groups(channels)
        gain = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        h = h.astype(jnp.promote_types(h.dtype, jnp.float32))
        grouped = lambda m: m.reshape(-1, groups, channels // groups).mean(2)  # noqa: E731
        mean = grouped(jnp.mean(h, axis=(1, 2)))
        variance = jnp.maximum(grouped(jnp.mean(h * h, axis=(1, 2))) - mean**2, 0.0)
        spread = lambda g: jnp.repeat(g, channels // groups, axis=1)  # noqa: E731
        factor = gain * spread(jax.lax.rsqrt(variance + self.eps))
        offset = bias - spread(mean) * factor
        if scale is not None:
            factor, offset = factor * (1 + scale), offset * (1 + scale)
        if shift is not None:
            offset = offset + shift
        return h * factor[:, None, None, :] + offset[:, None, None, :]


def upsample(h: Image) -> Resized:
    """Repeat each pixel four times."""
    return einops.repeat(h, "b h w c -> b (h 2) (w 2) c")


def downsample(h: Image) -> Resized:
    """The mean of each 2 x 2 block. Unlike taking every second pixel, it does not alias."""
    return einops.reduce(h, "b (h 2) (w 2) c -> b h w c", "mean")


def to_patches(x: Image, patch: int) -> Resized:
    """[b h w c] -> [b h/p w/p p*p*c]: pixel unshuffle, the inverse of `from_patches`."""
    return einops.rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=patch, q=patch)


def from_patches(x: Image, patch: int) -> Resized:
    """[b h w p*p*c] -> [b h*p w*p c]: pixel shuffle."""
    return einops.rearrange(x, "b h w (p q c) -> b (h p) (w q) c", p=patch, q=patch)


def drop_out(h: Image, rate: float, keys: PRNGKeys) -> Image:
    """A share `rate` of the numbers at zero, the others 1 / (1 - rate) times as large.

    Srivastava et al. 2014. keys: one for each row, so a row's draw does not depend on its batch.
    """
    least = round(rate * 2**16)  # 16 random bits for each number
    bits = jax.vmap(lambda key: jax.random.bits(key, h.shape[1:], jnp.uint16))(keys)
    return jnp.where(bits >= least, h / (1.0 - rate), jnp.zeros_like(h))


class ResBlock(nn.Module):
    """norm, silu, conv, scale-shift norm, silu, conv, plus its input.

    resample: double or halve the picture inside the block, on both branches (as in BigGAN and in
    Imagen's base network; app. F.1). The second convolution starts at zero, so a new block is the
    identity. The skip is a 1x1 convolution if widths differ, or always with `skip_conv` (as in the
    Efficient U-Net, fig. A.27). scale_shift: False adds the embedding before the second norm
    instead (as in DDPM). groups, eps: of the norms. dropout: the rate before the second
    convolution, if there are keys.
    """

    width: int
    resample: Literal["up", "down"] | None = None
    skip_conv: bool = False
    convolution: Convolution = lax.conv_general_dilated
    dtype: DTypeLike = jnp.float32
    scale_shift: bool = True
    groups: int = 0
    eps: float = 1e-5
    dropout: float = 0.0

    @nn.compact
    def __call__(self, h: Image, emb: Float[Array, "b e"], keys: PRNGKeys | None = None) -> Resized:
        """[b h w c] -> [b h' w' width]. keys: of the dropout; None for none."""
        move = {"up": upsample, "down": downsample, None: lambda x: x}[self.resample]
        first = self.convolution
        if self.resample == "up":
            first = functools.partial(after_doubling, convolution=self.convolution)
        conv = functools.partial(
            nn.Conv, self.width, conv_general_dilated=self.convolution, dtype=self.dtype
        )
        h = materialise(h)
        r = nn.silu(Norm(self.eps, self.groups, name="norm_0")(h)).astype(self.dtype)
        r = downsample(r) if self.resample == "down" else r
        r = mark_product(conv((3, 3), conv_general_dilated=first, name="conv_0")(r))
        norm = Norm(self.eps, self.groups, name="norm_1")
        if self.scale_shift:
            scale_shift = nn.Dense(2 * self.width, dtype=jnp.float32, name="scale_shift")(emb)
            scale, shift = jnp.split(scale_shift, 2, axis=-1)
            r = norm(r, scale, shift)
        else:
            shift = nn.Dense(self.width, dtype=jnp.float32, name="shift")(emb)
            r = norm(r + shift[:, None, None, :].astype(self.dtype))
        r = nn.silu(r).astype(self.dtype)
        if self.dropout and keys is not None:
            r = drop_out(r, self.dropout, keys)
        r = mark_product(conv((3, 3), kernel_init=nn.initializers.zeros, name="conv_1")(r))
        h = move(h)
        if self.skip_conv or h.shape[-1] != self.width:
            h = mark_product(conv((1, 1), name="skip")(h))
        return h + r


class Head(nn.Module):
    """Norm, silu, and a float32 convolution to the channels of the output that starts at zero."""

    channels: int
    patch: int = 1
    convolution: Convolution = lax.conv_general_dilated
    groups: int = 0
    eps: float = 1e-5

    @nn.compact
    def __call__(self, h: Image) -> Resized:
        """[b h w c] -> [b h*patch w*patch channels]."""
        out = nn.Conv(
            self.channels * self.patch**2,
            (3, 3),
            kernel_init=nn.initializers.zeros,
            conv_general_dilated=self.convolution,
            dtype=jnp.float32,
            name="conv",
        )(nn.silu(Norm(self.eps, self.groups, name="norm")(h)))
        return from_patches(out, self.patch)
