"""The levels of a U-Net: its fields, what it is told, the way down and the middle."""

import functools
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, TypeAlias, TypedDict

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from diffjax.core.types import Image, LogSnr, PRNGKeys, Resized, Text, TextMask, TokenIds
from diffjax.devices.mesh import SPLIT_OUTPUTS, Rules
from diffjax.models.layers.attention import Attention
from diffjax.models.layers.blocks import ResBlock, mark_product, to_patches
from diffjax.models.layers.convolve import Convolution
from diffjax.models.layers.embedding import Canvas, Conditioning, Steps
from diffjax.models.layers.level import block_class, keys_of, run_blocks
from diffjax.models.layers.network import DenoisingNetwork
from diffjax.models.layers.resample import Double, Halve
from diffjax.models.layers.sharding import RULES
from diffjax.models.words import SHARDING as OF_WORDS
from diffjax.models.words import TextTransformer, Words

# The embedding, the tokens and the mask of the tokens.
Conditions: TypeAlias = tuple[
    Float[Array, "b e"], Float[Array, "b k t"] | None, Bool[Array, "b k"] | None
]
# A rule for each parameter.
SHARDING: Rules = (
    *OF_WORDS,
    (r"(.*/)?shift/kernel", SPLIT_OUTPUTS),
    (r"(.*/)?(down|up)_\d+_to_\d+/conv/kernel", (None, "fsdp")),
    *RULES,
)


class Fields(TypedDict):
    """Of a block, as its level and the network say them."""

    width: int
    attention: Callable[..., Attention] | None
    convolution: Convolution
    dtype: DTypeLike
    residual: Callable[..., ResBlock]


class Levels(DenoisingNetwork):
    """Residual blocks with attention on each level; `UNet` and `Classifier` are made of them.

    Level i has `width * mults[i]` channels at 1 / 2^i of the stem's resolution, which is that of
    the picture divided by `patch` (pixel unshuffle; 1 in the paper). In `attention_levels`, pixels
    attend to each other and to the text after every block.

    null_class: whether a label of num_classes means no class; else the network always knows it.
    canvas: the number of channels that `embedding.Canvas` draws before the middle; a quarter of
    them is drawn after the stem. The network then takes pictures of one size only. 0: none, as in
    the paper. middle_attention: whether pixels attend in the middle too. scan: run the equal
    blocks of a level as one scan, so that the program does not grow with them.

    words: the sizes of a text transformer inside the network (GLIDE, Nichol et al. 2022); None: the
    text is told as embeddings.

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
    middle_attention: bool = True
    head_width: int = 64
    num_heads: int = 0
    token_width: int = 512
    patch: int = 1
    canvas: int = 0
    words: Words | None = None
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
    convolution: Convolution = lax.conv_general_dilated
    sharding: ClassVar[Rules] = SHARDING

    @property
    def stride(self) -> int:
        """The sides of a picture must be multiples of this."""
        return self.patch * 2 ** (len(self.mults) - 1)

    # All below is called inside a compact method.

    def _conditions(
        self,
        logsnr_t: LogSnr,
        text: Text | None = None,
        text_mask: TextMask | None = None,
        label: Int[Array, " b"] | None = None,
        vector: Float[Array, "b v"] | None = None,
        tokens: TokenIds | None = None,
    ) -> Conditions:
        """(embedding, tokens, mask of the tokens), see `Conditioning`."""
        width = self.embedding_width or 4 * self.width
        states = None
        if self.words is not None and tokens is not None:
            told = TextTransformer(
                self.words, self.remat, self.dtype, self.heads_first, name="words"
            )
            states = told(tokens)
        return Conditioning(
            width,
            self.words.tower.width if self.words is not None else self.token_width,
            self.dtype,
            self.num_classes,
            features=0 if self.steps is None else width // 4,
            null_class=self.null_class,
            steps=self.steps,
            sine_first=self.sine_first,
            name="conditioning",
        )(logsnr_t, text, text_mask, label=label, vector=vector, words=states)

    def _down(
        self, inputs: Sequence[Resized], conditions: Conditions, dropout_key: PRNGKeys | None
    ) -> tuple[Resized, list[Resized]]:
        """(what leaves the middle, the skips of the way up, the last one first)."""
        emb = conditions[0]
        h = to_patches(jnp.concatenate(inputs, axis=-1), self.patch)
        stem = nn.Conv(
            self.width, (3, 3), conv_general_dilated=self.convolution, dtype=self.dtype, name="stem"
        )
        h = mark_product(stem(h))
        if self.canvas:
            h = h + Canvas(h.shape[-1], self.canvas // 4, self.dtype, name="canvas_first")(
                emb, *h.shape[1:3]
            )
        skips, last = [h], len(self.mults) - 1
        for level in range(last + 1):
            # outside of the scan: its width may differ
            h = self._block(h, level, f"down_{level}_0", conditions, dropout_key)
            skips.append(h)
            h, rest = self._equal_blocks(h, level, f"down_{level}", conditions, dropout_key)
            skips += rest
            if level < last:
                h = self._moved(h, level, level + 1, conditions, dropout_key)
                skips.append(h)
        if self.canvas:
            h = h + Canvas(h.shape[-1], self.canvas, self.dtype, name="canvas_last")(
                emb, *h.shape[1:3]
            )
        for i, attend in enumerate((self._attention if self.middle_attention else None, None)):
            name = f"middle_{i}"
            fields: Fields = {**self._fields(last), "width": h.shape[-1], "attention": attend}
            middle = block_class(self.remat, unpack=self.unpack)(**fields, name=name)
            h = middle(h, *conditions, None, keys_of(dropout_key, name))
        return h, skips

    @property
    def _attention(self) -> Callable[..., Attention]:
        return functools.partial(
            Attention,
            self.head_width,
            num_heads=self.num_heads,
            implementation=self.attention_implementation,
            dtype=self.dtype,
            bias=self.attention_bias,
            heads_first=self.heads_first,
            groups=self.norm_groups,
            eps=self.norm_eps,
        )

    def _fields(self, level: int, attend: bool = True) -> Fields:
        """Of the blocks of a level."""
        return {
            "width": self.width * self.mults[level],
            "attention": self._attention if attend and level in self.attention_levels else None,
            "convolution": self.convolution,
            "dtype": self.dtype,
            "residual": functools.partial(
                ResBlock,
                scale_shift=self.scale_shift,
                groups=self.norm_groups,
                eps=self.norm_eps,
                dropout=self.dropout,
            ),
        }

    def _block(
        self,
        h: Image,
        level: int,
        name: str,
        conditions: Conditions,
        dropout_key: PRNGKeys | None,
        skip: Resized | None = None,
        resample: Literal["up", "down"] | None = None,
    ) -> Resized:
        block = block_class(self.remat, unpack=self.unpack)(
            **self._fields(level, attend=resample is None), resample=resample, name=name
        )
        return block(h, *conditions, skip, keys_of(dropout_key, name))

    def _equal_blocks(
        self,
        h: Image,
        level: int,
        name: str,
        conditions: Conditions,
        dropout_key: PRNGKeys | None,
        skips: Sequence[Resized] | None = None,
    ) -> tuple[Resized, list[Resized]]:
        """The blocks of a level after its first one, of one shape."""
        return run_blocks(
            h,
            conditions,
            name=name,
            first=1,
            num=self.num_blocks - 1,
            skips=skips,
            keys=dropout_key,
            scan=self.scan,
            remat=self.remat,
            unpack=self.unpack,
            **self._fields(level),
        )

    def _moved(
        self, h: Image, level: int, to: int, conditions: Conditions, dropout_key: PRNGKeys | None
    ) -> Resized:
        """At the resolution of the next level, down or up."""
        way: Literal["up", "down"] = "down" if to > level else "up"
        name = f"{way}_{level}_to_{to}"
        if self.resample == "block":
            return self._block(h, level, name, conditions, dropout_key, resample=way)
        if way == "up":
            return Double(self.convolution, self.dtype, name=name)(h)
        around = self.resample == "conv"
        return Halve(self.convolution, self.dtype, around, name=name)(h)
