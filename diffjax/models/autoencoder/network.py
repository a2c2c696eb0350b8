"""The autoencoder of latent diffusion: convolutions that shorten a picture, and their mirror.

Rombach et al. 2022, app. G; counts and constants are those of its released configs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.core.types import Image, Resized
from diffjax.devices.mesh import Rules
from diffjax.models.autoencoder.blocks import EPSILON, PixelAttention, ResBlock
from diffjax.models.autoencoder.codebook import Codebook, Quantised
from diffjax.models.layers.blocks import Norm, from_patches, mark_product, to_patches
from diffjax.models.layers.convolve import Convolution, with_columns
from diffjax.models.layers.level import KEPT, Remat
from diffjax.models.layers.resample import Double, Halve
from diffjax.models.layers.sharding import RULES

# What the log variance of a latent is held in, as in the paper's code.
LOG_VARIANCE = (-30.0, 20.0)
SHARDING: Rules = (
    (r"codebook/codes", (None,)),
    (r"(.*/)?(moments|latent|head|last)/kernel", ("fsdp", None)),  # few outputs
    (r"(.*/)?(halve|double)_\d/conv/kernel", (None, "fsdp")),
    *RULES,
)


@dataclass(frozen=True)
class Sizes:
    """The sizes of an autoencoder; those of KL-f8 by default.

    Level i has `channels * mults[i]` channels at 1 / 2^i of the picture's side. attention: at these
    levels pixels attend to each other. latent: channels of the latent. codes: the number of vectors
    of its codebook; 0 means that the latent is drawn from a Gaussian (the KL kind). groups: of each
    norm; 0 for 32, or fewer in small networks. patch: level 0 is at 1 / patch of the picture's side
    (pixel unshuffle before the stem, and back after the last convolution; 1 in the paper).
    """

    channels: int = 128
    mults: Sequence[int] = (1, 2, 4, 4)
    num_blocks: int = 2
    attention: Sequence[int] = ()
    latent: int = 4
    codes: int = 0
    groups: int = 0
    patch: int = 1

    @property
    def factor(self) -> int:
        """How many times longer the picture's side is than the latent's."""
        return self.patch * 2 ** (len(self.mults) - 1)


class Encoder(nn.Module):
    """[b h w 3] -> [b h/f w/f out]."""

    sizes: Sizes
    out: int
    remat: Remat = "none"
    convolution: Convolution = lax.conv_general_dilated
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Resized:  # noqa: D102
        sizes, parts = self.sizes, (self.convolution, self.dtype)
        block = _block(self.remat)
        h = _conv(self, sizes.channels, "stem")(to_patches(x, sizes.patch))
        for level, mult in enumerate(sizes.mults):
            for i in range(sizes.num_blocks):
                h = block(sizes.channels * mult, sizes.groups, *parts, name=f"level_{level}_{i}")(h)
                if level in sizes.attention:
                    h = PixelAttention(
                        sizes.groups, self.dtype, name=f"level_{level}_{i}_attention"
                    )(h)
            if level < len(sizes.mults) - 1:
                h = Halve(*parts, name=f"halve_{level}")(h)
        h = _middle(self, h, block)
        return _conv(self, self.out, "head")(_activated(self, h))


class Decoder(nn.Module):
    """[b h w z] -> [b h*f w*f c], where f is factor / patch: what the last convolution reads."""

    sizes: Sizes
    remat: Remat = "none"
    convolution: Convolution = lax.conv_general_dilated
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: Image) -> Resized:  # noqa: D102
        sizes, parts = self.sizes, (self.convolution, self.dtype)
        block = _block(self.remat)
        h = _conv(self, sizes.channels * sizes.mults[-1], "stem")(z)
        h = _middle(self, h, block)
        for level in reversed(range(len(sizes.mults))):
            for i in range(sizes.num_blocks + 1):
                width = sizes.channels * sizes.mults[level]
                h = block(width, sizes.groups, *parts, name=f"level_{level}_{i}")(h)
                if level in sizes.attention:
                    h = PixelAttention(
                        sizes.groups, self.dtype, name=f"level_{level}_{i}_attention"
                    )(h)
            if level > 0:
                h = Double(*parts, name=f"double_{level}")(h)
        return _activated(self, h)


class Autoencoder(nn.Module):
    """Encoder, decoder, the 1 x 1 convolutions between them, and the codebook if there is one.

    remat: what the backward pass computes again; see `level.KEPT`. The kernel of the last
    convolution is `last/kernel`, because the weight of an adversary is measured there.
    """

    sizes: Sizes
    remat: Remat = "none"
    convolution: Convolution = lax.conv_general_dilated
    dtype: DTypeLike = jnp.float32
    sharding: ClassVar[Rules] = SHARDING

    def setup(self) -> None:
        """The parts."""
        convolution = with_columns(self.convolution)
        sizes, parts = self.sizes, (self.remat, convolution, self.dtype)
        out = sizes.latent if sizes.codes else 2 * sizes.latent
        self.encoder = Encoder(sizes, out, *parts)
        self.decoder = Decoder(sizes, *parts)
        exact = jnp.promote_types(self.dtype, jnp.float32)
        self.moments = nn.Conv(out, (1, 1), dtype=exact)
        self.latent = nn.Conv(sizes.latent, (1, 1), dtype=exact)
        colours = 3 * sizes.patch**2
        self.last = nn.Conv(colours, (3, 3), dtype=exact, conv_general_dilated=convolution)
        if sizes.codes:
            self.codebook = Codebook(sizes.codes, sizes.latent)

    @property
    def stride(self) -> int:
        """The sides of a picture must be multiples of this."""
        return self.sizes.factor

    def encode(self, x: Image) -> Resized:
        """A picture in [-1, 1] -> the moments [b h w 2z] of its latent, or a point [b h w z]."""
        return self.moments(self.encoder(x))

    def features(self, z: Image) -> Resized:
        """The activations of the decoder before its last convolution."""
        return self.decoder(self.latent(z))

    def picture(self, features: Image) -> Resized:
        """The last convolution."""
        return from_patches(self.last(features), self.sizes.patch)

    def decode(self, z: Image) -> Resized:
        """A latent -> a picture, mostly in [-1, 1]."""
        return self.picture(self.features(z))

    def quantise(self, z: Image) -> Quantised:
        """The nearest code of each place; only with a codebook."""
        return self.codebook(z)

    def vectors(self, code: Int[Array, "b h w"]) -> Float[Array, "b h w z"]:
        """The vectors of these codes."""
        return self.codebook.at(code)

    def __call__(self, x: Image) -> Resized:
        """The picture after the middle of its latent; makes all parameters."""
        z = self.encode(x)
        if self.sizes.codes:
            return self.decode(self.quantise(z).vector)
        return self.decode(z[..., : self.sizes.latent])


def _block(remat: Remat) -> type[ResBlock]:
    return ResBlock if remat == "none" else nn.remat(ResBlock, policy=KEPT[remat])


def _conv(module: Encoder | Decoder, width: int, name: str) -> nn.Conv:
    return nn.Conv(
        width, (3, 3), conv_general_dilated=module.convolution, dtype=module.dtype, name=name
    )


def _middle(module: Encoder | Decoder, h: Image, block: type[ResBlock]) -> Image:
    """Called inside a compact module: a block, attention, a block."""
    groups = module.sizes.groups
    parts = (h.shape[-1], groups, module.convolution, module.dtype)
    h = block(*parts, name="middle_0")(h)
    h = PixelAttention(groups, module.dtype, name="middle_attention")(h)
    return mark_product(block(*parts, name="middle_1")(h))


def _activated(module: Encoder | Decoder, h: Image) -> Image:
    normed = Norm(EPSILON, module.sizes.groups, name="norm")(h)
    return nn.silu(normed).astype(module.dtype)
