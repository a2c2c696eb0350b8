"""The encoder of T5 (Raffel et al. 2020), with its variants v1.1, mT5, ByT5, Flan-T5 and UL2."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

FeedForwardKind = Literal["relu", "gated-gelu", "gated-silu"]
# The activations of a gated feed-forward; GELU is the tanh approximation.
GATES: dict[str, Callable[[Array], Array]] = {
    "gated-gelu": functools.partial(nn.gelu, approximate=True),
    "gated-silu": nn.silu,
}
FEED_FORWARDS = ("relu", *GATES)
DTYPES = (jnp.float32, jnp.bfloat16)


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Sizes of a T5 encoder; the field names are those of Hugging Face's config.json.

    `feed_forward` (`feed_forward_proj` there) is "relu" in T5 v1.0, "gated-gelu" in v1.1, mT5, ByT5
    and Flan-T5, and "gated-silu" in UL2. num_heads * d_kv need not be d_model.
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    feed_forward: FeedForwardKind = "gated-gelu"
    layer_norm_epsilon: float = 1e-6


class T5Encoder(nn.Module):
    """ids [b l], mask [b l] -> [b l d]: contextual embeddings, zero where the mask is False.

    dtype: of matrix products and of the result, float32 or bfloat16. Sums, the residual stream,
    norms and softmax are always float32. Values are of order 1; in bfloat16 (parameters too) they
    differ from float32 by at most 0.1, and by 0.02 in root mean square.
    look_up: (table, ids) -> rows of the table; sharded tables need one of their own.

    Raises:
      ValueError: the dtype is neither; see `check_dtype`.
    """

    config: T5Config
    dtype: DTypeLike = jnp.float32
    look_up: Callable[[Array, Array], Array] = functools.partial(jnp.take, axis=0)

    @nn.compact
    def __call__(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        """Embed the ids; `mask` is True at tokens and False at padding, which may be anywhere."""
        config, dtype = self.config, check_dtype(self.dtype)
        table = self.param("embedding", nn.initializers.normal(1.0), _shape(config, "embedding"))
        relative = self.param(
            "relative_bias",
            nn.initializers.normal(config.d_model**-0.5),
            _shape(config, "relative_bias"),
        )
        # Loaded parameters may be NumPy arrays.
        bias = position_bias(config, jnp.asarray(relative), mask.shape[1])
        h = self.look_up(jnp.asarray(table), ids).astype(jnp.float32)
        for i in range(config.num_layers):
            h = Block(config, dtype, name=f"block_{i}")(h, bias, mask)
        h = RMSNorm(config.layer_norm_epsilon, name="final_norm")(h)
        return jnp.where(mask[..., None], h, 0.0).astype(dtype)


class Block(nn.Module):
    """h + attention(norm(h)), then h + feed_forward(norm(h))."""

    config: T5Config
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, h: Float[Array, "b l d"], bias: Float[Array, "h l l"], mask: Bool[Array, "b l"]
    ) -> Float[Array, "b l d"]:
        """`bias` is added to the logits of every row; keys where `mask` is False are ignored."""
        eps = self.config.layer_norm_epsilon
        r = RMSNorm(eps, name="attention_norm")(h).astype(self.dtype)
        h = h + Attention(self.config, self.dtype, name="attention")(r, bias, mask)
        r = RMSNorm(eps, name="feed_forward_norm")(h).astype(self.dtype)
        return h + FeedForward(self.config, self.dtype, name="feed_forward")(r)


class Attention(nn.Module):
    """softmax(q k^T + bias) v; the usual factor 1 / sqrt(d_kv) is part of the initial weights."""

    config: T5Config
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, h: Float[Array, "b l d"], bias: Float[Array, "h l l"], mask: Bool[Array, "b l"]
    ) -> Float[Array, "b l d"]:
        """`bias` is added to the logits; keys where `mask` is False have the weight 0."""
        config = self.config
        inner = config.num_heads * config.d_kv

        def heads(name: str, stddev: float) -> Float[Array, "b l h k"]:
            x = _dense(inner, stddev, self.dtype, name)(h)
            return einops.rearrange(x, "b l (h k) -> b l h k", h=config.num_heads)

        out = jax.nn.dot_product_attention(
            heads("q", (config.d_model * config.d_kv) ** -0.5),
            heads("k", config.d_model**-0.5),
            heads("v", config.d_model**-0.5),
            bias=bias[None],
            mask=mask[:, None, None, :],
            scale=1.0,
        )
        out = einops.rearrange(out, "b l h k -> b l (h k)")
        return _dense_out(config.d_model, inner**-0.5, self.dtype, "o")(out)


class FeedForward(nn.Module):
    """relu(h wi) wo, or (gate(h wi_0) * (h wi_1)) wo (Shazeer 2020)."""

    config: T5Config
    dtype: DTypeLike

    @nn.compact
    def __call__(self, h: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        """Applied to each position separately."""
        config = self.config
        d, f = config.d_model, config.d_ff
        if config.feed_forward == "relu":
            x = nn.relu(_dense(f, d**-0.5, self.dtype, "wi")(h))
        else:
            gate = GATES[config.feed_forward]
            x = gate(_dense(f, d**-0.5, self.dtype, "wi_0")(h))
            x = x * _dense(f, d**-0.5, self.dtype, "wi_1")(h)
        return _dense_out(d, f**-0.5, self.dtype, "wo")(x)


class RMSNorm(nn.Module):
    """h / rms(h) * scale, in float32, with no mean and no bias (Zhang & Sennrich 2019)."""

    eps: float

    @nn.compact
    def __call__(self, h: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        """Applied to each position separately."""
        scale = self.param("scale", nn.initializers.ones, (h.shape[-1],))
        h = h.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(h), axis=-1, keepdims=True)
        return h * jax.lax.rsqrt(mean_square + self.eps) * scale.astype(jnp.float32)


def distance_buckets(
    distance: Int[np.ndarray, "n"], num_buckets: int, max_distance: int
) -> Int[np.ndarray, "n"]:
    """The bucket of each distance, key position - query position (Raffel et al. 2020, sec. 2.1).

    Half of the buckets are for keys after the query. In each half, the first half of the buckets
    are single distances, and the others grow logarithmically up to `max_distance`; larger distances
    share the last bucket.
    """
    side = num_buckets // 2
    exact = side // 2
    magnitude = np.abs(distance)
    # float32 as in the reference, because rounding decides the bucket at powers of two.
    ratio = np.log(np.maximum(magnitude, 1).astype(np.float32) / np.float32(exact))
    ratio = ratio / np.float32(np.log(max_distance / exact)) * np.float32(side - exact)
    far = np.minimum(exact + ratio.astype(np.int64), side - 1)
    return np.where(distance > 0, side, 0) + np.where(magnitude < exact, magnitude, far)


def check_dtype(dtype: DTypeLike) -> np.dtype:
    """The dtype as NumPy's, after checking that T5 can compute in it.

    Raises:
      ValueError: it is neither float32 nor bfloat16.
    """
    if dtype not in [jnp.dtype(allowed) for allowed in DTYPES]:
        name = jnp.dtype(dtype).name
        why = "; the feed-forwards of T5 exceed 65504, the largest number in float16" * (
            name == "float16"
        )
        raise ValueError(f"dtype={name}, want float32 or bfloat16{why}")
    return jnp.dtype(dtype)


def shapes(config: T5Config) -> dict:
    """The parameter tree of `T5Encoder(config)`, with ShapeDtypeStructs for leaves."""
    ids, mask = jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool)
    return jax.eval_shape(T5Encoder(config).init, jax.random.key(0), ids, mask)["params"]


def _shape(config: T5Config, name: str) -> tuple[int, int]:
    return {
        "embedding": (config.vocab_size, config.d_model),
        "relative_bias": (config.relative_attention_num_buckets, config.num_heads),
    }[name]


def position_bias(
    config: T5Config, relative: Float[Array, "n h"], length: int
) -> Float[Array, "h l l"]:
    """The bias that every layer adds to its logits; it depends only on the distance."""
    rows = distance_buckets(
        np.arange(1 - length, length),
        config.relative_attention_num_buckets,
        config.relative_attention_max_distance,
    )
    by_distance = jnp.take(relative.astype(jnp.float32), rows, axis=0)
    position = np.arange(length)
    index = position[None, :] - position[:, None] + length - 1
    return einops.rearrange(jnp.take(by_distance, index, axis=0), "q s h -> h q s")


def _dense(
    features: int,
    stddev: float,
    dtype: DTypeLike,
    name: str,
    dot_general: Callable[..., Array] | None = None,
) -> nn.Dense:
    init = nn.initializers.normal(stddev)
    return nn.Dense(
        features, use_bias=False, dtype=dtype, kernel_init=init, dot_general=dot_general, name=name
    )


def _dense_out(features: int, stddev: float, dtype: DTypeLike, name: str) -> nn.Dense:
    """Like `_dense`, but its result is float32, because it is added to the residual stream."""
    in_float32 = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
    return _dense(features, stddev, dtype, name, dot_general=in_float32)
