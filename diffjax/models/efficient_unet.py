"""The super-resolution network: the Efficient U-Net (Saharia et al. 2022, app. B.1, F.2, F.3)."""

import functools
import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from diffjax.core.types import Image, LogSnr, Resized, Text, TextMask
from diffjax.devices.mesh import Rules
from diffjax.models.layers.attention import Attention
from diffjax.models.layers.blocks import Head, from_patches, mark_product, to_patches, upsample
from diffjax.models.layers.convolve import Convolution
from diffjax.models.layers.embedding import Conditioning
from diffjax.models.layers.finish import Finish
from diffjax.models.layers.level import block_class, run_blocks
from diffjax.models.layers.network import DenoisingNetwork
from diffjax.models.layers.sharding import RULES
from diffjax.models.unet import UNet

# A rule for each parameter.
SHARDING: Rules = RULES


class EfficientUNet(DenoisingNetwork):
    """A U-Net with most blocks at low resolution, so that steps are cheap at 256 and 1024 px.

    Every down block first halves the picture with a strided convolution, and every up block doubles
    it at the end. Block i has `num_blocks[i]` residual blocks of `width * mults[i]` channels at
    1 / 2^(i + 1) of the stem's resolution. Levels in `attention_levels` (-1: the last one) have one
    attention layer after their last block. With attention "self", pixels attend to each other and
    to the text. With "cross" they attend to the text only; a network trained on crops can then run
    on whole pictures.

    The low-resolution condition, enlarged to the size of the picture, is concatenated with it.

    What the paper leaves open:
    skip: skips are added ("add", as in fig. A.29) or concatenated ("concat").
    skip_scale: a factor for the skips, 1 / sqrt 2 as in the paper; here it scales only the skip,
    not the sum.
    upsampling: a convolution and then each pixel four times ("repeat": cheapest, no checkerboard),
    or a convolution to four times the channels and a pixel shuffle ("shuffle").
    skip_conv: the skip inside a residual block is always a 1x1 convolution (fig. A.27), or only if
    widths differ, so that a new block can be the identity.

    from_low_res (not in any paper): the network predicts the difference between x_0 and alpha z,
    where z is the noised low-resolution picture and alpha belongs to its noise level; alpha z is
    the multiple of z that is nearest to the clean picture.
    finish (not in any paper): the channels of `Finish`, for networks on patches; 0: none.
    scan: as in `unet.UNet`.
    """

    width: int = 128
    mults: Sequence[int] = (1, 2, 4, 8)
    num_blocks: Sequence[int] = (2, 4, 8, 8)
    attention: Literal["self", "cross"] = "self"
    attention_levels: Sequence[int] = (-1,)
    head_width: int = 64
    num_heads: int = 0
    token_width: int = 512
    patch: int = 1
    skip: Literal["add", "concat"] = "add"
    skip_scale: float = math.sqrt(0.5)
    upsampling: Literal["repeat", "shuffle"] = "repeat"
    skip_conv: bool = False
    from_low_res: bool = False
    finish: int = 0
    scan: bool = False
    convolution: Convolution = lax.conv_general_dilated
    sharding: ClassVar[Rules] = SHARDING

    @property
    def stride(self) -> int:
        """The sides of a picture must be multiples of this."""
        return self.patch * 2 ** len(self.mults)

    @nn.compact
    def __call__(
        self,
        x_t: Image,
        logsnr_t: LogSnr,
        text: Text | None = None,
        text_mask: TextMask | None = None,
        *,
        low_res: Image,
        aug_logsnr: LogSnr,
        label: Int[Array, " b"] | None = None,
        vector: Float[Array, "b v"] | None = None,
    ) -> Resized:
        """Noisy picture, level, text, noised low-resolution picture, its level -> eps, v or x_0."""
        if len(self.num_blocks) != len(self.mults):
            raise ValueError(
                f"num_blocks {self.num_blocks} and mults {self.mults} differ in length"
            )
        emb, tokens, text_mask = Conditioning(
            4 * self.width, self.token_width, self.dtype, self.num_classes, name="conditioning"
        )(logsnr_t, text, text_mask, aug_logsnr, label, vector)
        conditions = (emb, tokens, text_mask)
        num_levels = len(self.mults)
        attending = [level % num_levels for level in self.attention_levels]
        run_equal = functools.partial(
            run_blocks,
            scan=self.scan,
            remat=self.remat,
            unpack=self.unpack,
            skip_conv=self.skip_conv,
            convolution=self.convolution,
            dtype=self.dtype,
        )

        def blocks(h, level, name):
            width, num = self.width * self.mults[level], self.num_blocks[level]
            alone = int(h.shape[-1] != width)  # a block with a concatenated skip as its input
            attends = level in attending
            if alone:
                h = single(h, width, f"{name}_0", attends and num == 1)
            first = alone
            num_equal = num - first - attends
            h, _ = run_equal(h, conditions, name=name, first=first, num=num_equal, width=width)
            if attends and first < num:
                h = single(h, width, f"{name}_{num - 1}", True)
            return h

        def single(h, width, name, attend):
            attention = functools.partial(
                Attention,
                self.head_width,
                self.attention,
                self.num_heads,
                self.attention_implementation,
                self.dtype,
            )
            block = block_class(self.remat, unpack=self.unpack)(
                width,
                attention=attention if attend else None,
                skip_conv=self.skip_conv,
                convolution=self.convolution,
                dtype=self.dtype,
                name=name,
            )
            return block(h, *conditions)

        def conv(h, width, name, **options):
            made = nn.Conv(
                width, (3, 3), conv_general_dilated=self.convolution, dtype=self.dtype, name=name,
                **options,
            )  # fmt: skip
            return mark_product(made(h))

        def joined(h, skip):
            skip = skip * self.skip_scale
            return h + skip if self.skip == "add" else jnp.concatenate([h, skip], axis=-1)

        def doubled(h, width, name):
            if self.upsampling == "repeat":
                return upsample(conv(h, width, name))
            return from_patches(conv(h, 4 * width, name), 2)

        h = to_patches(jnp.concatenate([x_t, low_res], axis=-1), self.patch)
        stem = h = conv(h, self.width, "stem")
        skips = []
        for level, mult in enumerate(self.mults):
            h = conv(h, self.width * mult, f"down_{level}_stride", strides=2)
            h = blocks(h, level, f"down_{level}")
            skips.append(h)
        for level in range(num_levels - 1, -1, -1):
            h = blocks(joined(h, skips[level]), level, f"up_{level}")
            h = doubled(h, self.width * self.mults[max(level - 1, 0)], f"up_{level}_stride")
        # only the stem carries full-resolution detail, above all the noise, to the head
        answer = Head(
            self.out_channels or x_t.shape[-1], self.patch, self.convolution, name="head"
        )(joined(h, stem))
        if self.from_low_res:
            answer += jnp.sqrt(nn.sigmoid(aug_logsnr))[:, None, None, None] * low_res
        if self.finish:
            last = Finish(self.finish, self.convolution, self.dtype, name="finish")
            answer = last(answer, [x_t, low_res], emb)
        return answer


def is_convolutional(model: nn.Module) -> bool:
    """Whether a network trained on crops may be run on whole pictures."""
    if isinstance(model, UNet):
        return not (model.attention_levels or model.middle_attention or model.canvas)
    return isinstance(model, EfficientUNet) and model.attention == "cross"
