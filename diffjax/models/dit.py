"""The diffusion transformer, DiT (Peebles & Xie 2023), with text as in PixArt or as in MM-DiT."""

import functools
from collections.abc import Callable
from typing import ClassVar, Literal

import einops
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.core.types import Image, LogSnr, Resized, Text, TextMask
from diffjax.devices.mesh import SPLIT_OUTPUTS, Rules
from diffjax.models.layers.blocks import from_patches, mark_product, to_patches
from diffjax.models.layers.dense import Dense
from diffjax.models.layers.embedding import Conditioning
from diffjax.models.layers.level import Blocks, wrapped
from diffjax.models.layers.network import DenoisingNetwork, Hole, beside_hole
from diffjax.models.layers.positions import sincos
from diffjax.models.layers.sharding import RULES
from diffjax.models.layers.transformer import (
    XAVIER,
    ZEROS,
    Block,
    CrossAttention,
    JointBlock,
    Layer,
    Seen,
    Stream,
    Vector,
    modulated,
)

FEATURES = 256  # sines and cosines of the noise level
# A rule for each parameter.
SHARDING: Rules = (
    (r"(.*/)?modulation/kernel", SPLIT_OUTPUTS),
    (r"(.*/)?text_stream/kernel", (None, "fsdp")),
    (r"(.*/)?head/dense/kernel", ("fsdp", None)),  # a few channels
    *RULES,
)


class DiT(DenoisingNetwork):
    """Equal blocks of attention among patches; the conditions set shifts, scales and gates.

    The picture is cut into patches of side `patch`, and a block attends among all of them. Their
    positions are fixed sines and cosines. The noise level, the class and the pooled text go into
    every block by adaLN-zero; a new network returns zero.

    text: what the tokens of a text do beside that. "cross": each block attends to them after it
    attended to the patches (Chen et al. 2023). "joint": they are a second stream with weights of
    its own, and one attention is over both (Esser et al. 2024).
    num_heads: of size `head_width`; 0 means width / head_width. qk_norm: queries and keys are
    normed. scan: as in `unet.UNet`.
    """

    width: int = 768
    num_blocks: int = 12
    head_width: int = 64
    num_heads: int = 0
    patch: int = 2
    text: Literal["cross", "joint"] = "cross"
    token_width: int = 512
    qk_norm: bool = False
    scan: bool = False
    sharding: ClassVar[Rules] = SHARDING

    @property
    def stride(self) -> int:
        """The sides of a picture must be multiples of this."""
        return self.patch

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

        masked, mask: as in `unet.UNet`.
        """
        emb, tokens, text_mask = Conditioning(
            self.width, self.token_width, self.dtype, self.num_classes, FEATURES,
            name="conditioning",
        )(logsnr_t, text, text_mask, label=label, vector=vector)  # fmt: skip
        patches = to_patches(beside_hole(x_t, masked, mask), self.patch)
        height, width = patches.shape[1:3]
        patches = einops.rearrange(patches, "b h w c -> b (h w) c").astype(self.dtype)
        stem = Dense(self.width, dtype=self.dtype, kernel_init=XAVIER, name="stem")
        h = mark_product(stem(patches)) + jnp.asarray(sincos(height, width, self.width))
        if tokens is not None and text_mask is not None and self.text == "joint":
            h = self._joint(h, emb, tokens, text_mask)
        else:
            h = self._single(h, emb, tokens, text_mask)
        out_channels = self.out_channels or x_t.shape[-1]
        h = Head(out_channels * self.patch**2, name="head")(h, emb)
        return from_patches(
            einops.rearrange(h, "b (h w) c -> b h w c", h=height, w=width), self.patch
        )

    def _single(
        self, h: Stream, emb: Vector, tokens: Float[Array, "b k t"] | None, mask: Seen | None
    ) -> Stream:
        """The blocks of one stream, with cross-attention if there are tokens."""
        num_heads = self._num_heads()
        cross = functools.partial(
            CrossAttention, num_heads, self.head_width, self.qk_norm,
            self.attention_implementation, self.dtype,
        )  # fmt: skip
        block = functools.partial(
            self._class(Block), self._layer(), cross, self.attention_implementation
        )
        if not self.scan:
            for i in range(self.num_blocks):
                h = block(name=f"block_{i}")(h, emb, tokens, mask)
            return h
        scanned = _scan(lambda block, h, _: (block(h, emb, tokens, mask), None), self.num_blocks)
        return scanned(block(name="block_0_on"), h, None)[0]

    def _joint(self, h: Stream, emb: Vector, tokens: Float[Array, "b k t"], mask: Seen) -> Stream:
        """The blocks of two streams. The last, which leaves the text as it is, is not scanned."""
        into = Dense(self.width, dtype=self.dtype, kernel_init=XAVIER, name="text_stream")
        both = (h, mark_product(into(tokens)).astype(jnp.float32))
        fields = self._layer(), self.attention_implementation
        block = functools.partial(self._class(JointBlock), *fields)
        equal = self.num_blocks - 1
        if self.scan and equal:
            scanned = _scan(lambda block, both, _: (block(*both, emb, mask), None), equal)
            both, _ = scanned(block(name="block_0_on"), both, None)
        else:
            for i in range(equal):
                both = block(name=f"block_{i}")(*both, emb, mask)
        last = wrapped(JointBlock, self.remat, unpack=self.unpack)
        return last(*fields, last=True, name=f"block_{equal}")(*both, emb, mask)[0]

    def _class(self, block: type[Blocks]) -> type[Blocks]:
        return wrapped(block, self.remat, self.scan, self.unpack)

    def _layer(self) -> functools.partial:
        return functools.partial(
            Layer, self.width, self._num_heads(), self.head_width, self.qk_norm, self.dtype
        )

    def _num_heads(self) -> int:
        if not self.num_heads and self.width % self.head_width:
            raise ValueError(f"width {self.width}: not a multiple of head_width {self.head_width}")
        return self.num_heads or self.width // self.head_width


def _scan(body: Callable, length: int) -> Callable:
    """A scan over blocks of which each has parameters of its own."""
    return nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True}, length=length)


class Head(nn.Module):
    """A norm that the conditions shift and scale, and a dense layer that starts at zero."""

    features: int

    @nn.compact
    def __call__(self, h: Stream, emb: Vector) -> Float[Array, "b l {self.features}"]:
        """[b l c] -> [b l features] in float32."""
        both = nn.Dense(2 * h.shape[-1], dtype=jnp.float32, kernel_init=ZEROS, name="scale_shift")
        shift, scale = jnp.split(both(emb), 2, axis=-1)
        dense = Dense(self.features, dtype=jnp.float32, kernel_init=ZEROS, name="dense")
        return mark_product(dense(modulated(h, shift, scale)))
