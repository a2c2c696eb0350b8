"""The network of an autoregressive prior: a causal transformer over a text and buckets."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.core.types import Text, TextMask
from diffjax.devices.mesh import Rules
from diffjax.models.layers import causal
from diffjax.models.layers.causal import CausalBlock, Kept, Seen, Stream
from diffjax.models.layers.dense import Dense
from diffjax.models.layers.level import Remat, Unpack, wrapped

# The places after the text: its vector, and the bucket of the product.
PLACES_AFTER = 2
Logits = Float[Array, "b _ n"]

SHARDING: Rules = (
    (r"(.*/)?(text_in|text_vector_in)/kernel", (None, "fsdp")),
    (r"(.*/)?(code|dot)/embedding", (None, "fsdp")),
    (r"(.*/)?positions", (None,)),
    (r"(.*/)?out/kernel", ("fsdp", None)),
    *causal.SHARDING,
)


class AutoregressivePrior(nn.Module):
    """Text and buckets -> logits of the next bucket  (Ramesh et al. 2022, sec. 2.2).

    The sequence is the tokens of the text, its CLIP vector, the bucket `dot` of the product of both
    vectors, and the buckets of the components, the first of which is read at the place of `dot`.
    length: the tokens of a text, with padding, which no place sees. dot = dots stands for none.
    remat, unpack: see `DenoisingNetwork`.
    """

    width: int = 1664
    num_blocks: int = 24
    num_heads: int = 26
    length: int = 256
    components: int = 319
    buckets: int = 1024
    dots: int = 1024
    remat: Remat = "none"
    unpack: Unpack | None = None
    dtype: DTypeLike = jnp.float32
    sharding: ClassVar[Rules] = SHARDING

    def setup(self) -> None:
        """The layers by their names in a checkpoint."""
        width, normal = self.width, nn.initializers.normal
        self.text_in = Dense(width, dtype=self.dtype)
        self.text_vector_in = Dense(width, dtype=self.dtype)
        self.dot = nn.Embed(self.dots + 1, width, embedding_init=normal(0.02))
        self.code = nn.Embed(self.buckets, width, embedding_init=normal(0.02))
        self.positions = self.param("positions", normal(0.01), (self.places, width))
        block = wrapped(CausalBlock, self.remat, unpack=self.unpack)
        sizes = (width, self.num_heads, self.num_blocks, self.dtype)
        self.block = [block(*sizes) for _ in range(self.num_blocks)]
        self.norm_out = causal.norm()
        self.out = nn.Dense(self.buckets, dtype=jnp.float32)

    @property
    def places(self) -> int:
        """Of the whole sequence; the last bucket is told to nobody."""
        return self.length + PLACES_AFTER + self.components - 1

    def __call__(
        self,
        codes: Int[Array, "b k"],
        dot: Int[Array, " b"],
        text: Text,
        text_mask: TextMask,
        text_vector: Float[Array, "b v"],
    ) -> Logits:
        """The logits of each bucket, given the text and the buckets before it."""
        said = self._said(dot, text, text_vector)
        h = jnp.concatenate([said, self.code(codes[:, :-1])], axis=1) + self.positions
        seen = self._seen(text_mask)
        for block in self.block:
            h = block(h, seen)
        return self._logits(h[:, said.shape[1] - 1 :])

    def begin(
        self,
        dot: Int[Array, " b"],
        text: Text,
        text_mask: TextMask,
        text_vector: Float[Array, "b v"],
    ) -> tuple[Logits, list[Kept]]:
        """(the logits [b 1 n] of the first bucket, what `go_on` needs of the places before)."""
        h = self._said(dot, text, text_vector)
        h = h + self.positions[: h.shape[1]]
        seen, every = self._seen(text_mask)[:, : h.shape[1]], []
        for block in self.block:
            h, kept = block.begin(h, seen, self.places)
            every.append(kept)
        return self._logits(h[:, -1:]), every

    def go_on(
        self, code: Int[Array, " b"], index: Int[Array, ""], text_mask: TextMask, every: list[Kept]
    ) -> tuple[Logits, list[Kept]]:
        """(the logits [b 1 n] of bucket index + 1, the same one place further).

        code: the bucket `index` that was chosen.
        """
        place = self.length + PLACES_AFTER + index
        h = self.code(code)[:, None] + jax.lax.dynamic_slice_in_dim(self.positions, place, 1)
        seen = self._seen(text_mask) & (jnp.arange(self.places) <= place)
        further = []
        for block, kept in zip(self.block, every, strict=True):
            h, kept = block.go_on(h, seen, kept, place)
            further.append(kept)
        return self._logits(h), further

    def _said(
        self, dot: Int[Array, " b"], text: Text, text_vector: Float[Array, "b v"]
    ) -> Float[Array, "b _ c"]:
        tokens, vector = self.text_in(text), self.text_vector_in(text_vector)
        parts = [tokens, vector[:, None], self.dot(dot)[:, None]]
        return jnp.concatenate([part.astype(jnp.float32) for part in parts], axis=1)

    def _seen(self, text_mask: TextMask) -> Seen:
        after = ((0, 0), (0, self.places - self.length))
        return jnp.pad(text_mask, after, constant_values=True)

    def _logits(self, h: Stream) -> Logits:
        return self.out(self.norm_out(h))
