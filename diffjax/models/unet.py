"""The base network: Imagen's 64 px U-Net (Saharia et al. 2022, app. F.1)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffjax.models.attention import Attention
from diffjax.models.blocks import Head, ResBlock, to_patches
from diffjax.models.embed import Conditioning
from diffjax.types import Image, LogSnr, Text, TextMask


class UNet(nn.Module):
    """Residual blocks and attention on the way down and up, skips concatenated.

    Level i has `width * mults[i]` channels at 1 / 2^i of the stem's resolution, which is the
    picture's divided by `patch` (pixel unshuffle; 1 in the paper). Levels in
    `attention_levels` attend to themselves and to the text after every block.
    """

    width: int = 128
    mults: Sequence[int] = (1, 2, 3, 4)
    num_blocks: int = 2
    attention_levels: Sequence[int] = (1, 2, 3)
    head_width: int = 64
    token_width: int = 512
    patch: int = 1
    dtype: Any = jnp.float32

    @property
    def stride(self) -> int:
        """The picture's sides must be multiples of this."""
        return self.patch * 2 ** (len(self.mults) - 1)

    @nn.compact
    def __call__(self, x_t: Image, logsnr_t: LogSnr, text: Text, text_mask: TextMask) -> Image:
        """Noisy picture, noise level and text embeddings -> eps, v or x_0, as it was trained."""
        emb, tokens = Conditioning(
            4 * self.width, self.token_width, dtype=self.dtype, name="conditioning"
        )(logsnr_t, text, text_mask)

        def block(h, level, name, resample=None, attend=True):
            width = self.width * self.mults[level]
            h = ResBlock(width, resample, dtype=self.dtype, name=f"{name}_res")(h, emb)
            if attend and level in self.attention_levels:
                attention = Attention(self.head_width, dtype=self.dtype, name=f"{name}_attention")
                h = attention(h, tokens, text_mask)
            return h

        h = to_patches(x_t, self.patch)
        h = nn.Conv(self.width, (3, 3), dtype=self.dtype, name="stem")(h)
        skips = [h]
        last = len(self.mults) - 1
        for level in range(last + 1):
            for i in range(self.num_blocks):
                h = block(h, level, f"down_{level}_{i}")
                skips.append(h)
            if level < last:
                h = block(h, level, f"down_{level}_to_{level + 1}", "down", attend=False)
                skips.append(h)

        h = ResBlock(h.shape[-1], dtype=self.dtype, name="middle_0_res")(h, emb)
        h = Attention(self.head_width, dtype=self.dtype, name="middle_attention")(
            h, tokens, text_mask
        )
        h = ResBlock(h.shape[-1], dtype=self.dtype, name="middle_1_res")(h, emb)

        for level in range(last, -1, -1):
            for i in range(self.num_blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), level, f"up_{level}_{i}")
            if level > 0:
                h = block(h, level, f"up_{level}_to_{level - 1}", "up", attend=False)
        return Head(x_t.shape[-1], self.patch, name="head")(h)
