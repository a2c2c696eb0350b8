"""Embeds the conditions of a network, noise levels and text, as one vector and as tokens."""

import math
from collections.abc import Callable
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from diffjax.core.types import LogSnr, PerExample, Text, TextMask

# The longest period is 1.5 times the range of log SNR in use, -20 to 20. The shortest one
# distinguishes levels that differ by 0.05.
LONGEST_PERIOD = 64.0
SHORTEST_PERIOD = 0.25
LONGEST = 10_000.0  # steps: 2 pi of them are the longest period of a step's waves
# log SNR -> the step of a chain that is told to the network.
Steps: TypeAlias = Callable[[LogSnr], PerExample]
# How many tokens a vector becomes beside the text.
VECTOR_TOKENS = 4


def sinusoids(logsnr: LogSnr, width: int) -> Float[Array, "b e"]:
    """sin and cos of logsnr at `width` / 2 frequencies in geometric progression, in float32."""
    if width % 2:
        raise ValueError(f"width {width} of an embedding: it must be even")
    periods = jnp.geomspace(LONGEST_PERIOD, SHORTEST_PERIOD, width // 2)
    angles = logsnr.astype(jnp.float32)[:, None] * (2.0 * math.pi / periods)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def step_sinusoids(step: PerExample, width: int, sine_first: bool = False) -> Float[Array, "b e"]:
    """cos and sin of the step at `width` / 2 frequencies, from 1 down to 1 / LONGEST.

    sine_first: as in DDPM's code (Ho et al. 2020), whose last frequency is 1 / LONGEST itself. Else
    cos comes first, and 1 / LONGEST would be the frequency after the last, as in improved DDPM's
    (Nichol & Dhariwal 2021).
    """
    half = width // 2
    gaps = half - 1 if sine_first else half
    frequencies = jnp.exp(-math.log(LONGEST) / gaps * jnp.arange(half, dtype=jnp.float32))
    angles = step.astype(jnp.float32)[:, None] * frequencies
    waves = [jnp.cos(angles), jnp.sin(angles)]
    return jnp.concatenate(waves[::-1] if sine_first else waves, axis=-1)


class NoiseLevelEmbedding(nn.Module):
    """Sinusoids of the log SNR and two dense layers, in float32 for any dtype of the network.

    features: the number of sinusoids; 0 for `width` of them. steps: turns the log SNR into the step
    of a chain, of which the sinusoids are then; sine_first: see `step_sinusoids`.
    """

    width: int
    features: int = 0
    steps: Steps | None = None
    sine_first: bool = False

    @nn.compact
    def __call__(self, logsnr: LogSnr) -> Float[Array, "b e"]:
        """[b] -> [b width]."""
        features = self.features or self.width
        if self.steps is None:
            waves = sinusoids(logsnr, features)
        else:
            waves = step_sinusoids(self.steps(logsnr), features, self.sine_first)
        h = nn.Dense(self.width, dtype=jnp.float32, name="dense_0")(waves)
        return nn.Dense(self.width, dtype=jnp.float32, name="dense_1")(nn.silu(h))


class TextPooling(nn.Module):
    """Pools the tokens to one vector, by attention from learned queries (Imagen, app. F)."""

    width: int
    num_heads: int = 4

    @nn.compact
    def __call__(self, tokens: Text, mask: TextMask) -> Float[Array, "b e"]:
        """[b l d] -> [b width]; masked tokens are ignored."""
        keys = nn.Dense(self.num_heads, dtype=jnp.float32, name="score")(tokens)
        keys = jnp.where(mask[:, :, None], keys, -jnp.inf)
        weights = jax.nn.softmax(keys, axis=1)  # per head, one distribution over the tokens
        values = nn.Dense(self.width, dtype=jnp.float32, name="value")(tokens)
        values = values.reshape(*values.shape[:2], self.num_heads, -1)
        pooled = jnp.einsum("blk,blkd->bkd", weights, values).reshape(tokens.shape[0], self.width)
        return nn.Dense(self.width, dtype=jnp.float32, name="out")(
            nn.LayerNorm(name="norm")(pooled)
        )


class Conditioning(nn.Module):
    """Noise level, augmentation level, text, class and vector as one vector; the text as tokens.

    The text embeddings are normalised before attention and before pooling (Imagen, sec. 2.5).
    num_classes: a label in 0 ... num_classes - 1 adds an embedding of its own; the label
    num_classes means no class (Ho & Salimans 2022); it exists only with `null_class`. features,
    steps, sine_first: of the noise levels, see `NoiseLevelEmbedding`. A vector, such as CLIP's of
    a picture, is added too, and becomes VECTOR_TOKENS more tokens if there is text (Ramesh et al.
    2022, sec. 2.1). The states of a text transformer inside the network (`models.words`) are tokens
    as they are, and the last one is added (Nichol et al. 2022, sec. 3).
    """

    width: int
    token_width: int
    dtype: DTypeLike = jnp.float32
    num_classes: int = 0
    features: int = 0
    null_class: bool = True
    steps: Steps | None = None
    sine_first: bool = False

    @nn.compact
    def __call__(
        self,
        logsnr_t: LogSnr,
        text: Text | None,
        text_mask: TextMask | None,
        aug_logsnr: LogSnr | None = None,
        label: Int[Array, " b"] | None = None,
        vector: Float[Array, "b v"] | None = None,
        words: Float[Array, "b s t"] | None = None,
    ) -> tuple[Float[Array, "b e"], Float[Array, "b k t"] | None, Bool[Array, "b k"] | None]:
        """Returns (embedding [b width] in float32, tokens [b k token_width], mask [b k] of tokens).

        The mask is True where a token is seen; None: all are. Tokens are None without text. words:
        the states of a text transformer, of width token_width.
        """
        emb = NoiseLevelEmbedding(
            self.width, self.features, self.steps, self.sine_first, name="noise"
        )(logsnr_t)
        if aug_logsnr is not None:
            emb = emb + NoiseLevelEmbedding(self.width, self.features, name="aug")(aug_logsnr)
        if label is not None:
            num = self.num_classes + self.null_class
            emb = emb + nn.Embed(num, self.width, name="label")(label)
        if vector is not None:
            vector = nn.LayerNorm(name="vector_norm")(vector)
            emb = emb + nn.Dense(self.width, name="vector")(vector)
        if words is not None:
            last = nn.Dense(self.width, dtype=jnp.float32, name="last_token")
            emb = emb + last(words[:, -1].astype(jnp.float32))
            if vector is not None:
                words = jnp.concatenate([words, self._tokens_of(vector)], axis=1)
            return nn.silu(emb), words.astype(self.dtype), None
        if text is None or text_mask is None:
            return nn.silu(emb), None, None
        text = nn.LayerNorm(dtype=jnp.float32, name="text_norm")(text.astype(jnp.float32))
        tokens = nn.Dense(self.token_width, dtype=jnp.float32, name="text_in")(text)
        emb = emb + TextPooling(self.width, name="text_pool")(tokens, text_mask)
        if vector is not None:
            tokens = jnp.concatenate([tokens, self._tokens_of(vector)], axis=1)
            text_mask = jnp.pad(text_mask, ((0, 0), (0, VECTOR_TOKENS)), constant_values=True)
        tokens = nn.LayerNorm(dtype=jnp.float32, name="token_norm")(tokens)
        return nn.silu(emb), tokens.astype(self.dtype), text_mask

    def _tokens_of(self, vector: Float[Array, "b v"]) -> Float[Array, "b m t"]:
        """A vector as more tokens. Called inside the compact method."""
        more = nn.Dense(VECTOR_TOKENS * self.token_width, name="vector_tokens")(vector)
        return more.reshape(len(vector), VECTOR_TOKENS, self.token_width)


class Canvas(nn.Module):
    """Turns the embedding into a grid, so that the text can say where things are.

    One dense layer gives each pixel of the grid `channels` numbers, like the first layer of DCGAN's
    generator (Radford et al. 2015, sec. 3); its biases act as an embedding of positions. It is
    cheap, because it is one product per picture, but it fixes the size of the picture.
    """

    width: int
    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, emb: Float[Array, "b e"], height: int, width: int
    ) -> Float[Array, "b {height} {width} {self.width}"]:
        """[b e] -> [b height width c]; zero before training."""
        drawn = nn.Dense(height * width * self.channels, dtype=jnp.float32, name="draw")(emb)
        drawn = nn.silu(drawn).reshape(-1, height, width, self.channels).astype(self.dtype)
        return nn.Dense(
            self.width, use_bias=False, kernel_init=nn.initializers.zeros, dtype=self.dtype,
            name="out",
        )(drawn)  # fmt: skip
