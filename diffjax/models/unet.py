"""The base network: Imagen's 64 px U-Net (Saharia et al. 2022, app. F.1)."""

import functools
from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

from diffjax.core.types import Image, LogSnr, Resized, Text, TextMask
from diffjax.devices.mesh import Rules
from diffjax.models.layers.attention import Attention
from diffjax.models.layers.blocks import Head, mark_product, to_patches
from diffjax.models.layers.convolve import Convolution
from diffjax.models.layers.embedding import Canvas, Conditioning
from diffjax.models.layers.level import block_class, run_blocks
from diffjax.models.layers.network import DenoisingNetwork, Hole, beside_hole
from diffjax.models.layers.sharding import RULES

# A rule for each parameter.
SHARDING: Rules = RULES


class UNet(DenoisingNetwork):
    """Residual blocks with attention on the way down and up; skips are concatenated.

    Level i has `width * mults[i]` channels at 1 / 2^i of the stem's resolution, which is that of
    the picture divided by `patch` (pixel unshuffle; 1 in the paper). In `attention_levels`, pixels
    attend to each other and to the text after every block.

    canvas: the number of channels that `embedding.Canvas` draws before the middle; a quarter of
    them is drawn after the stem. The network then takes pictures of one size only. 0: none, as in
    the paper. scan: run the equal blocks of a level as one scan, so that the program does not grow
    with them.
    """

    width: int = 128
    mults: Sequence[int] = (1, 2, 3, 4)
    num_blocks: int = 2
    attention_levels: Sequence[int] = (1, 2, 3)
    head_width: int = 64
    num_heads: int = 0
    token_width: int = 512
    patch: int = 1
    canvas: int = 0
    scan: bool = False
    convolution: Convolution = lax.conv_general_dilated
    sharding: ClassVar[Rules] = SHARDING

    @property
    def stride(self) -> int:
        """The sides of a picture must be multiples of this."""
        return self.patch * 2 ** (len(self.mults) - 1)

    @nn.compact
    def __call__(
        self,
        x_t: Image,
        logsnr_t: LogSnr,
        text: Text | None = None,
        text_mask: TextMask | None = None,
        label: Int[Array, " b"] | None = None,
        vector: Float[Array, "b v"] | None = None,
        masked: Image | None = None,
        mask: Hole | None = None,
    ) -> Resized:
        """Noisy picture, noise level and conditions -> eps, v or x_0, as the network was trained.

        masked, mask: a picture with a hole, and the hole as 1.0; they are concatenated as channels.
        """
        emb, tokens, text_mask = Conditioning(
            4 * self.width, self.token_width, self.dtype, self.num_classes, name="conditioning"
        )(logsnr_t, text, text_mask, label=label, vector=vector)
        conditions = (emb, tokens, text_mask)
        attention = functools.partial(
            Attention,
            self.head_width,
            num_heads=self.num_heads,
            implementation=self.attention_implementation,
            dtype=self.dtype,
        )

        def fields(level, attend=True):
            return {
                "width": self.width * self.mults[level],
                "attention": attention if attend and level in self.attention_levels else None,
                "convolution": self.convolution,
                "dtype": self.dtype,
            }

        def one(h, level, name, skip=None, resample=None, attend=True):
            block = block_class(self.remat, unpack=self.unpack)(
                **fields(level, attend), resample=resample, name=name
            )
            return block(h, *conditions, skip)

        run_equal = functools.partial(
            run_blocks, scan=self.scan, remat=self.remat, unpack=self.unpack
        )
        last, num = len(self.mults) - 1, self.num_blocks

        h = to_patches(beside_hole(x_t, masked, mask), self.patch)
        h = mark_product(
            nn.Conv(
                self.width, (3, 3), conv_general_dilated=self.convolution, dtype=self.dtype,
                name="stem",
            )(h)
        )  # fmt: skip
        if self.canvas:
            h = h + Canvas(h.shape[-1], self.canvas // 4, self.dtype, name="canvas_first")(
                emb, *h.shape[1:3]
            )
        skips = [h]
        for level in range(last + 1):
            h = one(h, level, f"down_{level}_0")  # outside of the scan: its width may differ
            skips.append(h)
            h, rest = run_equal(
                h, conditions, name=f"down_{level}", first=1, num=num - 1, **fields(level)
            )
            skips += rest
            if level < last:
                h = one(h, level, f"down_{level}_to_{level + 1}", None, "down", attend=False)
                skips.append(h)

        if self.canvas:
            h = h + Canvas(h.shape[-1], self.canvas, self.dtype, name="canvas_last")(
                emb, *h.shape[1:3]
            )
        for i, attend in enumerate((attention, None)):
            middle = block_class(self.remat, unpack=self.unpack)(
                h.shape[-1],
                attention=attend,
                convolution=self.convolution,
                dtype=self.dtype,
                name=f"middle_{i}",
            )
            h = middle(h, *conditions)

        for level in range(last, -1, -1):
            # outside of the scan: the first block has a wider input, the last a narrower skip
            h = one(h, level, f"up_{level}_0", skips.pop())
            equal = [skips.pop() for _ in range(num - 1)]
            h, _ = run_equal(
                h,
                conditions,
                name=f"up_{level}",
                first=1,
                num=num - 1,
                skips=equal,
                **fields(level),
            )
            h = one(h, level, f"up_{level}_{num}", skips.pop())
            if level > 0:
                h = one(h, level, f"up_{level}_to_{level - 1}", None, "up", attend=False)
        return Head(self.out_channels or x_t.shape[-1], self.patch, self.convolution, name="head")(
            h
        )
