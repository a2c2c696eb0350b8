"""The super-resolution network: the Efficient U-Net (Saharia et al. 2022, app. B.1, F.2, F.3)."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from diffjax.models.attention import Attention
from diffjax.models.blocks import Head, ResBlock, to_patches, upsample
from diffjax.models.embed import Conditioning
from diffjax.types import Image, LogSnr, Text, TextMask


class EfficientUNet(nn.Module):
    """Most of its blocks at low resolution, so that a step is cheap at 256 and 1024 px.

    Every down block starts by halving the picture (a strided convolution) and every up block
    ends by doubling it; block i has `num_blocks[i]` residual blocks of `width * mults[i]`
    channels at 1 / 2^(i + 1) of the stem's resolution. Skips are scaled by 1 / sqrt 2 and added.
    The last level attends: to itself and the text ("self"), or to the text alone ("cross"),
    which lets a network trained on crops run on the whole picture.

    The picture is joined on channels by the low-resolution condition, enlarged to its size.
    """

    width: int = 128
    mults: Sequence[int] = (1, 2, 4, 8)
    num_blocks: Sequence[int] = (2, 4, 8, 8)
    attention: Literal["self", "cross"] = "self"
    head_width: int = 64
    token_width: int = 512
    patch: int = 1
    dtype: Any = jnp.float32

    @property
    def stride(self) -> int:
        """The picture's sides must be multiples of this."""
        return self.patch * 2 ** len(self.mults)

    @nn.compact
    def __call__(
        self,
        x_t: Image,
        logsnr_t: LogSnr,
        text: Text,
        text_mask: TextMask,
        low_res: Image,
        aug_logsnr: LogSnr,
    ) -> Image:
        """Noisy picture, its level, text, the noised low-resolution picture and its level."""
        if len(self.num_blocks) != len(self.mults):
            raise ValueError(
                f"num_blocks {self.num_blocks} and mults {self.mults} differ in length"
            )
        emb, tokens = Conditioning(
            4 * self.width, self.token_width, dtype=self.dtype, name="conditioning"
        )(logsnr_t, text, text_mask, aug_logsnr)
        last = len(self.mults) - 1

        def blocks(h, level, name):
            width = self.width * self.mults[level]
            for i in range(self.num_blocks[level]):
                h = ResBlock(width, dtype=self.dtype, name=f"{name}_{i}_res")(h, emb)
            if level == last:
                h = Attention(
                    self.head_width, self.attention, dtype=self.dtype, name=f"{name}_attention"
                )(h, tokens, text_mask)
            return h

        conv = lambda width, name, **kw: nn.Conv(  # noqa: E731
            width, (3, 3), dtype=self.dtype, name=name, **kw
        )
        h = to_patches(jnp.concatenate([x_t, low_res], axis=-1), self.patch)
        stem = h = conv(self.width, "stem")(h)
        skips = []
        for level, mult in enumerate(self.mults):
            h = conv(self.width * mult, f"down_{level}_stride", strides=2)(h)
            h = blocks(h, level, f"down_{level}")
            skips.append(h)
        for level in range(last, -1, -1):
            h = h + skips[level] * math.sqrt(0.5)
            h = blocks(h, level, f"up_{level}")
            width = self.width * self.mults[max(level - 1, 0)]
            h = upsample(conv(width, f"up_{level}_stride")(h))
        # full-resolution detail, the noise above all, reaches the head by the stem alone
        h = h + stem * math.sqrt(0.5)
        return Head(x_t.shape[-1], self.patch, name="head")(h)
