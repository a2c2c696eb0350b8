"""The blocks of a diffusion transformer; the text takes part by cross- or by joint attention.

Products are in `dtype`; the residual stream, norms and softmax are float32.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from diffjax.models.layers.blocks import mark_product, materialise
from diffjax.models.layers.dense import Dense
from diffjax.models.layers.heads import attend

EPS = 1e-6  # of all norms
XAVIER = nn.initializers.xavier_uniform()
ZEROS = nn.initializers.zeros

Stream: TypeAlias = Float[Array, "b l c"]
Vector: TypeAlias = Float[Array, "b e"]
Heads: TypeAlias = Float[Array, "b l n d"]
Seen: TypeAlias = Bool[Array, "b k"]  # which tokens of a text are seen
Implementation: TypeAlias = Literal["xla", "cudnn"] | None


class Asked(NamedTuple):
    """Queries, keys and values of a stream, and what its layer needs after the attention.

    after: the gate of the attention, then shift, scale and gate of the feed-forward; () for a
    stream that goes no further.
    """

    query: Heads
    key: Heads
    value: Heads
    after: tuple[Vector, ...]


def modulated(h: Stream, shift: Vector | None = None, scale: Vector | None = None) -> Stream:
    """norm(h) (1 + scale) + shift, with a LayerNorm that has no parameters; float32."""
    h = h.astype(jnp.float32)
    h = h - jnp.mean(h, axis=-1, keepdims=True)
    h = h * jax.lax.rsqrt(jnp.mean(h * h, axis=-1, keepdims=True) + EPS)
    if shift is None or scale is None:
        return h
    return h * (1.0 + scale[:, None]) + shift[:, None]


class HeadNorm(nn.Module):
    """x / sqrt(mean x^2) of each head with a learned gain: the norm of queries and keys.

    It keeps the logits of attention small (Dehghani et al. 2023; Esser et al. 2024, sec. 5.3.2).
    """

    @nn.compact
    def __call__(self, x: Heads) -> Heads:
        """[b l n d] -> the same, in its own dtype."""
        gain = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + EPS)
        return (wide * gain).astype(x.dtype)


class Layer(nn.Module):
    """What a block does with one stream of vectors: adaLN-zero (Peebles & Xie 2023, fig. 3).

    h = h + gate out(attention(norm(h) (1 + scale) + shift)), and then the same with a feed-forward
    of four widths. Shifts, scales and gates are a dense layer of the embedding that starts at zero,
    so a new block is the identity. qk_norm: queries and keys are normed (`HeadNorm`). last: the
    stream ends here: it has keys and values for others, but asks nothing itself.
    """

    width: int
    num_heads: int
    head_width: int
    qk_norm: bool = False
    dtype: DTypeLike = jnp.float32
    last: bool = False

    def setup(self) -> None:
        """Makes the layers."""

        def dense(features: int) -> nn.Dense:
            return Dense(features, dtype=self.dtype, kernel_init=XAVIER)

        parts, inner = 2 if self.last else 6, self.num_heads * self.head_width
        self.modulation = nn.Dense(parts * self.width, dtype=jnp.float32, kernel_init=ZEROS)
        if self.qk_norm:
            self.k_norm = HeadNorm()
        if self.last:
            self.text_kv = dense(2 * inner)
        else:
            self.qkv = dense(3 * inner)
            if self.qk_norm:
                self.q_norm = HeadNorm()
            self.out = dense(self.width)
            self.dense_0 = dense(4 * self.width)
            self.dense_1 = dense(self.width)

    def ask(self, h: Stream, emb: Vector) -> Asked:
        """Queries, keys and values; no queries of a stream that ends here."""
        shift, scale, *after = jnp.split(self.modulation(emb), 2 if self.last else 6, axis=-1)
        r = modulated(h, shift, scale).astype(self.dtype)
        made = mark_product((self.text_kv if self.last else self.qkv)(r))
        *query, key, value = einops.rearrange(
            made, "b l (n k d) -> n b l k d", k=self.num_heads, d=self.head_width
        )
        key = self.k_norm(key) if self.qk_norm else key
        if self.last:
            return Asked(key[:, :0], key, value, ())
        return Asked(self.q_norm(*query) if self.qk_norm else query[0], key, value, tuple(after))

    def take(self, h: Stream, attended: Heads, asked: Asked) -> Stream:
        """The stream with what it attended to."""
        out = mark_product(self.out(einops.rearrange(attended, "b l k d -> b l (k d)")))
        return h + asked.after[0][:, None] * out

    def feed(self, h: Stream, asked: Asked) -> Stream:
        """The stream after the feed-forward."""
        _, shift, scale, gate = asked.after
        r = mark_product(self.dense_0(modulated(h, shift, scale).astype(self.dtype)))
        r = mark_product(self.dense_1(nn.gelu(r, approximate=True)))
        return h + gate[:, None] * r


class CrossAttention(nn.Module):
    """Attention from the stream to the tokens of a text, added to the stream; zero before training.

    It comes between attention and feed-forward, as in PixArt (Chen et al. 2023, sec. 2.3).
    """

    num_heads: int
    head_width: int
    qk_norm: bool = False
    implementation: Implementation = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Stream, tokens: Float[Array, "b k t"], mask: Seen) -> Stream:
        """[b l c] -> [b l c]. mask: True where a token is seen."""
        inner = self.num_heads * self.head_width

        def heads(x: Array, name: str, num: int) -> list[Array]:
            layer = Dense(num * inner, dtype=self.dtype, kernel_init=XAVIER, name=name)
            made = mark_product(layer(x.astype(self.dtype)))
            return list(einops.rearrange(made, "b l (n k d) -> n b l k d", n=num, k=self.num_heads))

        (query,) = heads(modulated(h), "q", 1)
        key, value = heads(tokens, "text_kv", 2)
        if self.qk_norm:
            query, key = HeadNorm(name="q_norm")(query), HeadNorm(name="k_norm")(key)
        attended = attend(
            query, key, value, mask=mask[:, None, None], implementation=self.implementation
        )
        out = Dense(h.shape[-1], dtype=self.dtype, kernel_init=ZEROS, name="out")
        attended = mark_product(einops.rearrange(attended, "b l k d -> b l (k d)"))
        return h + mark_product(out(attended))


class Block(nn.Module):
    """Attention among the pixels, then to the text if there is any, then the feed-forward."""

    layer: Callable[..., Layer]  # called to make its own
    cross: Callable[..., CrossAttention]
    implementation: Implementation = None

    @nn.compact
    def __call__(
        self,
        h: Stream,
        emb: Vector,
        tokens: Float[Array, "b k t"] | None,
        mask: Seen | None,
    ) -> Stream:
        """[b l c] -> [b l c]."""
        h = materialise(h)
        pixels = self.layer(name="pixels")
        asked = pixels.ask(h, emb)
        attended = attend(asked.query, asked.key, asked.value, implementation=self.implementation)
        h = pixels.take(h, mark_product(attended), asked)
        if tokens is not None and mask is not None:
            h = self.cross(name="cross")(h, tokens, mask)
        return pixels.feed(h, asked)


class JointBlock(nn.Module):
    """Two streams, pixels and text, with weights of their own and one attention over both.

    MM-DiT (Esser et al. 2024, fig. 2b). last: the block after which the text is not needed.
    """

    layer: Callable[..., Layer]
    implementation: Implementation = None
    last: bool = False

    @nn.compact
    def __call__(
        self, h: Stream, text: Float[Array, "b k c"], emb: Vector, mask: Seen
    ) -> tuple[Stream, Float[Array, "b k c"]]:
        """([b l c], [b k c]) -> both. mask: True where a token of the text is seen."""
        h = materialise(h)
        pixels, words = self.layer(name="pixels"), self.layer(name="text", last=self.last)
        ours, theirs = pixels.ask(h, emb), words.ask(text, emb)
        query, key, value = (
            jnp.concatenate(pair, axis=1) for pair in zip(ours[:3], theirs[:3], strict=True)
        )
        seen = jnp.pad(mask, ((0, 0), (h.shape[1], 0)), constant_values=True)[:, None, None]
        attended = mark_product(
            attend(query, key, value, mask=seen, implementation=self.implementation)
        )
        to_h, to_text = jnp.split(attended, [h.shape[1]], axis=1)
        h = pixels.feed(pixels.take(h, to_h, ours), ours)
        if self.last:
            return h, text
        return h, words.feed(words.take(text, to_text, theirs), theirs)
