"""The U-Net: Imagen's 64 px network, and its ancestors.

By default it is Imagen's (Saharia et al. 2022, app. F.1). With other fields it is the network of
DDPM (Ho et al. 2020), of improved DDPM (Nichol & Dhariwal 2021) or ADM (Dhariwal & Nichol 2021);
configs/ddpm.py, iddpm.py and adm.py have their values.
"""

import functools
from collections.abc import Sequence
from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.core.types import Image, LogSnr, PRNGKeys, Resized, Text, TextMask
from diffjax.devices.mesh import SPLIT_OUTPUTS, Rules
from diffjax.models.layers.attention import Attention
from diffjax.models.layers.blocks import Head, ResBlock, mark_product, to_patches
from diffjax.models.layers.convolve import Convolution
from diffjax.models.layers.embedding import Canvas, Conditioning, Steps
from diffjax.models.layers.level import Remat, Unpack, block_class, keys_of, run_blocks
from diffjax.models.layers.resample import Double, Halve
from diffjax.models.layers.sharding import RULES

# A rule for each parameter.
SHARDING: Rules = (
    (r"(.*/)?shift/kernel", SPLIT_OUTPUTS),
    (r"(.*/)?(down|up)_\d+_to_\d+/conv/kernel", (None, "fsdp")),
    *RULES,
)


class UNet(nn.Module):
    """Residual blocks with attention on the way down and up; skips are concatenated.

    Level i has `width * mults[i]` channels at 1 / 2^i of the stem's resolution, which is that of
    the picture divided by `patch` (pixel unshuffle; 1 in the paper). In `attention_levels`, pixels
    attend to each other and to the text after every block.

    num_classes: the number of classes; a label of num_classes means no class, if `null_class`.
    out_channels: 0 for as many channels as the noisy picture has. A learned variance needs twice as
    many; a network that sees its last prediction beside the noisy picture needs half as many.
    canvas: the number of channels that `embedding.Canvas` draws before the middle; a quarter of
    them is drawn after the stem. The network then takes pictures of one size only. 0: none, as in
    the paper. scan: run the equal blocks of a level as one scan, so that the program does not grow
    with them. remat: what the backward pass computes again; see `level.KEPT`. unpack: applied to
    the parameters of each block where they are used; see `level.block_class`.

    What the ancestors have otherwise:
    embedding_width: of the conditions as one vector; 0 for 4 x width. steps: turns the log SNR into
    the step of a chain, which the network is told instead; sine_first: see `step_sinusoids`.
    norm_groups, norm_eps: of all norms; 0 groups for 32, or fewer in small networks. scale_shift:
    False adds the embedding before the second norm of a block. dropout: its rate in all blocks, if
    keys are given. attention_bias, heads_first: see `Attention`. resample: resolution changes in a
    residual block (BigGAN's), or by a convolution: "conv", or "conv_after" with DDPM's padding, see
    `Halve`.
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
    num_classes: int = 0
    out_channels: int = 0
    null_class: bool = True
    embedding_width: int = 0
    steps: Steps | None = None
    sine_first: bool = False
    norm_groups: int = 0
    norm_eps: float = 1e-5
    scale_shift: bool = True
    dropout: float = 0.0
    attention_bias: bool = False
    heads_first: bool = False
    resample: Literal["block", "conv", "conv_after"] = "block"
    scan: bool = False
    remat: Remat = "none"
    unpack: Unpack | None = None
    attention_implementation: Literal["xla", "cudnn"] | None = None
    convolution: Convolution = lax.conv_general_dilated
    dtype: DTypeLike = jnp.float32
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
        mask: Float[Array, "b h w 1"] | None = None,
        low_res: Image | None = None,
        dropout_key: PRNGKeys | None = None,
    ) -> Resized:
        """Noisy picture, noise level and conditions -> eps, v or x_0, as the network was trained.

        masked, mask: a picture with a hole, and the hole as 1.0; they are concatenated as channels,
        and so is low_res, a smaller picture that was enlarged. dropout_key: None for no dropout.
        """
        emb_width = self.embedding_width or 4 * self.width
        emb, tokens, text_mask = Conditioning(
            emb_width,
            self.token_width,
            self.dtype,
            self.num_classes,
            features=0 if self.steps is None else emb_width // 4,
            null_class=self.null_class,
            steps=self.steps,
            sine_first=self.sine_first,
            name="conditioning",
        )(logsnr_t, text, text_mask, label=label, vector=vector)
        conditions = (emb, tokens, text_mask)
        groups, eps = self.norm_groups, self.norm_eps
        residual = functools.partial(
            ResBlock, scale_shift=self.scale_shift, groups=groups, eps=eps, dropout=self.dropout
        )
        attention = functools.partial(
            Attention,
            self.head_width,
            num_heads=self.num_heads,
            implementation=self.attention_implementation,
            dtype=self.dtype,
            bias=self.attention_bias,
            heads_first=self.heads_first,
            groups=groups,
            eps=eps,
        )

        def fields(level, attend=True):
            return {
                "width": self.width * self.mults[level],
                "attention": attention if attend and level in self.attention_levels else None,
                "convolution": self.convolution,
                "dtype": self.dtype,
                "residual": residual,
            }

        def one(h, level, name, skip=None, resample=None, attend=True):
            block = block_class(self.remat, unpack=self.unpack)(
                **fields(level, attend), resample=resample, name=name
            )
            return block(h, *conditions, skip, keys_of(dropout_key, name))

        def moved(h, level, name, way):
            if self.resample == "block":
                return one(h, level, name, None, way, attend=False)
            if way == "up":
                return Double(self.convolution, self.dtype, name=name)(h)
            around = self.resample == "conv"
            return Halve(self.convolution, self.dtype, around, name=name)(h)

        run_equal = functools.partial(
            run_blocks, keys=dropout_key, scan=self.scan, remat=self.remat, unpack=self.unpack
        )
        last, num = len(self.mults) - 1, self.num_blocks

        inputs = [x_t] if masked is None or mask is None else [x_t, masked, mask]
        inputs += [] if low_res is None else [low_res]
        h = to_patches(jnp.concatenate(inputs, axis=-1), self.patch)
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
                h = moved(h, level, f"down_{level}_to_{level + 1}", "down")
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
                residual=residual,
                name=f"middle_{i}",
            )
            h = middle(h, *conditions, None, keys_of(dropout_key, f"middle_{i}"))

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
                h = moved(h, level, f"up_{level}_to_{level - 1}", "up")
        out = self.out_channels or x_t.shape[-1]
        return Head(out, self.patch, self.convolution, groups, eps, name="head")(h)
