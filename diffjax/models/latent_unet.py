"""The U-Net of latent diffusion (Rombach et al. 2022), with the sizes of Stable Diffusion 1."""

import functools
from collections.abc import Callable, Sequence
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.core.types import Image, LogSnr, Resized, Text, TextMask
from diffjax.devices.mesh import SPLIT_INPUTS, SPLIT_OUTPUTS, Rules
from diffjax.models.layers.blocks import Norm, mark_product, materialise
from diffjax.models.layers.convolve import Convolution, with_columns
from diffjax.models.layers.embedding import Steps, sinusoids, step_sinusoids
from diffjax.models.layers.level import wrapped
from diffjax.models.layers.network import DenoisingNetwork, Hole, beside_hole
from diffjax.models.layers.resample import Double, Halve
from diffjax.models.layers.sharding import RULES
from diffjax.models.layers.spatial import SpatialTransformer

EPS = 1e-5  # of the GroupNorms
SHARDING: Rules = (
    (r"(.*/)?(shift|proj_in)/kernel", SPLIT_OUTPUTS),
    (r"(.*/)?proj_out/kernel", SPLIT_INPUTS),
    (r"(.*/)?(down|up)_\d+_to_\d+/conv/kernel", (None, "fsdp")),
    *RULES,
)


class LatentUNet(DenoisingNetwork):
    """Residual blocks, each with a transformer at `attention_levels`; skips are concatenated.

    Level i has `width * mults[i]` channels at 1 / 2^i of the latent's resolution. num_heads: of
    each transformer (Stable Diffusion 1 has 8); 0 means heads of `head_width` (Stable Diffusion 2).
    depth: blocks of a transformer. groups: of each norm; 0 for 32, or fewer in small networks.
    steps: turns the log SNR into the step that the network is told, such as `table.steps_of`; None
    tells it the log SNR, as the other networks.
    """

    width: int = 320
    mults: Sequence[int] = (1, 2, 4, 4)
    num_blocks: int = 2
    attention_levels: Sequence[int] = (0, 1, 2)
    num_heads: int = 8
    head_width: int = 64
    depth: int = 1
    groups: int = 0
    steps: Steps | None = None
    convolution: Convolution = lax.conv_general_dilated
    sharding: ClassVar[Rules] = SHARDING

    @property
    def stride(self) -> int:
        """The sides of a latent must be multiples of this."""
        return 2 ** (len(self.mults) - 1)

    @nn.compact
    def __call__(
        self,
        x_t: Image,
        logsnr_t: LogSnr,
        text: Text | None = None,
        text_mask: TextMask | None = None,
        label: Int[Array, " b"] | None = None,
        masked: Image | None = None,
        mask: Hole | None = None,
    ) -> Resized:
        """Noisy latent, noise level and conditions -> eps, v or x_0, as the network was trained."""
        emb = self._embedding(logsnr_t)
        if label is not None:
            emb = emb + nn.Embed(self.num_classes + 1, emb.shape[-1], name="label")(label)
        emb = nn.silu(emb)
        convolution = with_columns(self.convolution)
        parts = (convolution, self.dtype)
        transformer = functools.partial(
            SpatialTransformer,
            self.num_heads,
            self.head_width,
            self.depth,
            self.groups,
            self.attention_implementation,
            self.dtype,
        )
        block_class = wrapped(LatentBlock, self.remat, unpack=self.unpack)

        def one(h: Image, level: int, name: str, skip: Resized | None = None) -> Resized:
            attention = transformer if level in attended else None
            block = block_class(
                self.width * self.mults[level], attention, self.groups, *parts, name=name
            )
            return block(h, emb, text, text_mask, skip)

        last = len(self.mults) - 1
        attended = {level % len(self.mults) for level in self.attention_levels}
        stem = nn.Conv(
            self.width, (3, 3), conv_general_dilated=convolution, dtype=self.dtype, name="stem"
        )
        h = mark_product(stem(beside_hole(x_t, masked, mask)))
        skips = [h]
        for level in range(last + 1):
            for i in range(self.num_blocks):
                h = one(h, level, f"down_{level}_{i}")
                skips.append(h)
            if level < last:
                h = Halve(*parts, around=True, name=f"down_{level}_to_{level + 1}")(h)
                skips.append(h)
        for i, attention in enumerate((transformer, None)):
            middle = block_class(h.shape[-1], attention, self.groups, *parts, name=f"middle_{i}")
            h = middle(h, emb, text, text_mask)
        for level in range(last, -1, -1):
            for i in range(self.num_blocks + 1):
                h = one(h, level, f"up_{level}_{i}", skips.pop())
            if level > 0:
                h = Double(*parts, name=f"up_{level}_to_{level - 1}")(h)
        out = self.out_channels or x_t.shape[-1]
        return LatentHead(out, self.groups, convolution, name="head")(h)

    def _embedding(self, logsnr_t: LogSnr) -> Float[Array, "b e"]:
        """Called inside the compact method: sinusoids and two dense layers, in float32."""
        if self.steps is None:
            known = sinusoids(logsnr_t, self.width)
        else:
            known = step_sinusoids(self.steps(logsnr_t), self.width)
        dense = functools.partial(nn.Dense, 4 * self.width, dtype=jnp.float32)
        return dense(name="dense_1")(nn.silu(dense(name="dense_0")(known)))


class LatentBlock(nn.Module):
    """Concatenates the skip, if any; then a residual block; then a transformer, if any."""

    width: int
    attention: Callable[..., SpatialTransformer] | None = None  # makes the transformer
    groups: int = 0
    convolution: Convolution = lax.conv_general_dilated
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        h: Image,
        emb: Float[Array, "b e"],
        text: Text | None,
        mask: TextMask | None,
        skip: Resized | None = None,
    ) -> Resized:
        """[b h w c] -> [b h w width]."""
        if skip is not None:
            h = jnp.concatenate([h, skip], axis=-1)
        res = LatentResBlock(self.width, self.groups, self.convolution, self.dtype, name="res")
        h = res(h, emb)
        return h if self.attention is None else self.attention(name="attention")(h, text, mask)


class LatentResBlock(nn.Module):
    """norm, silu, conv, plus the embedding, norm, silu, conv, plus its input.

    The second convolution starts at zero. The skip is 1 x 1 if widths differ.
    """

    width: int
    groups: int = 0
    convolution: Convolution = lax.conv_general_dilated
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Image, emb: Float[Array, "b e"]) -> Resized:
        """[b h w c] -> [b h w width]."""
        conv = functools.partial(
            nn.Conv, self.width, conv_general_dilated=self.convolution, dtype=self.dtype
        )
        h = materialise(h)
        r = nn.silu(Norm(EPS, self.groups, name="norm_0")(h)).astype(self.dtype)
        r = mark_product(conv((3, 3), name="conv_0")(r))
        shift = nn.Dense(self.width, dtype=jnp.float32, name="shift")(emb)
        r = r + shift[:, None, None, :].astype(self.dtype)
        r = nn.silu(Norm(EPS, self.groups, name="norm_1")(r)).astype(self.dtype)
        r = mark_product(conv((3, 3), kernel_init=nn.initializers.zeros, name="conv_1")(r))
        if h.shape[-1] != self.width:
            h = mark_product(conv((1, 1), name="skip")(h))
        return h + r


class LatentHead(nn.Module):
    """Norm, silu, and a float32 convolution to the channels of the output that starts at zero."""

    channels: int
    groups: int = 0
    convolution: Convolution = lax.conv_general_dilated

    @nn.compact
    def __call__(self, h: Image) -> Resized:
        """[b h w c] -> [b h w channels]."""
        out = nn.Conv(
            self.channels, (3, 3), kernel_init=nn.initializers.zeros,
            conv_general_dilated=self.convolution, dtype=jnp.float32, name="conv",
        )  # fmt: skip
        return out(nn.silu(Norm(EPS, self.groups, name="norm")(h)))
