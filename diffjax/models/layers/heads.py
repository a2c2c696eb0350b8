"""Attention of heads; on CPUs a few heads at a time, so that their logits stay in the cache."""

import functools
import math
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

Heads: TypeAlias = Float[Array, "b _ n d"]
Seen: TypeAlias = Bool[Array, "b 1 1 k"]
Flat: TypeAlias = Float[Array, "g _ d"]  # each head of each example
Bias: TypeAlias = Float[Array, "g 1 k"]  # added to the logits: zero, or very small if not seen

LOGITS = 2**20  # so many are in memory at a time: 4 MB in float32


def attend(
    query: Heads,
    key: Heads,
    value: Heads,
    mask: Seen | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    implementation: Literal["xla", "cudnn"] | None = None,
) -> Heads:
    """`jax.nn.dot_product_attention`, which on a CPU is computed as `_in_parts`.

    mask: True where a key is seen. scale: of the logits; None for 1 / sqrt(d).
    """
    usual = functools.partial(
        jax.nn.dot_product_attention, is_causal=causal, scale=scale, implementation=implementation
    )
    if implementation == "cudnn":
        return usual(query, key, value, mask=mask)
    by_heads = functools.partial(_by_heads, causal=causal, scale=scale)
    return lax.platform_dependent(
        query,
        key,
        value,
        mask,
        cpu=by_heads,
        default=lambda *given: usual(*given[:3], mask=given[3]),
    )


def _by_heads(
    query: Heads, key: Heads, value: Heads, mask: Seen | None, *, causal: bool, scale: float | None
) -> Heads:
    """The heads of all examples next to each other, which is the order that products need."""
    b, _, n, d = query.shape
    flat = lambda x: jnp.swapaxes(x, 1, 2).reshape(b * n, x.shape[1], d)  # noqa: E731
    query = query * (1 / math.sqrt(d) if scale is None else scale)
    bias = None
    if mask is not None:
        least = jnp.finfo(jnp.float32).min
        bias = jnp.where(jnp.repeat(mask[:, 0], n, axis=0), 0.0, least)
    seen = _in_parts(causal, flat(query), flat(key), flat(value), bias)
    return jnp.swapaxes(seen.reshape(b, n, -1, d), 1, 2)


class Kept(NamedTuple):
    """What the backward pass needs: all but the logits.

    largest: of a query's logits. total: sum_k exp(logit - largest). Not the logarithm of their
    sum, in which the total would be lost where no key is seen.
    """

    query: Flat
    key: Flat
    value: Flat
    bias: Bias | None
    seen: Flat
    largest: Float[Array, "g l 1"]
    total: Float[Array, "g l 1"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _in_parts(causal: bool, query: Flat, key: Flat, value: Flat, bias: Bias | None) -> Flat:
    """softmax(q k^T + bias) v, for LOGITS of the logits at a time.

    The backward pass computes the logits again, as FlashAttention does (Dao et al. 2022): they are
    never in memory all at once, where a U-Net spends most of its memory on them.
    """
    return _forward(causal, query, key, value, bias)[0]


def _logits(causal: bool, query: Flat, key: Flat, bias: Bias | None) -> Float[Array, "g l k"]:
    exact = jnp.promote_types(query.dtype, jnp.float32)
    logits = jnp.einsum("gld,gkd->glk", query, key, preferred_element_type=exact)
    if bias is not None:
        logits = logits + bias
    if causal:
        logits = jnp.where(jnp.tril(jnp.ones(logits.shape[1:], bool)), logits, jnp.finfo(exact).min)
    return logits


def _forward(causal, query, key, value, bias):
    def part(query, key, value, bias):
        logits = _logits(causal, query, key, bias)
        largest = jnp.max(logits, axis=-1, keepdims=True)
        shares = jnp.exp(logits - largest)
        total = jnp.sum(shares, axis=-1, keepdims=True)
        seen = jnp.einsum("glk,gkd->gld", shares.astype(value.dtype), value)
        return (seen / total).astype(value.dtype), largest, total

    seen, *sums = _mapped(part, query, key, value, bias)
    return seen, Kept(query, key, value, bias, seen, *sums)


def _backward(causal, kept, d_seen):
    def part(kept, d_seen):
        logits = _logits(causal, kept.query, kept.key, kept.bias)
        shares = jnp.exp(logits - kept.largest) / kept.total
        d_shares = jnp.einsum(
            "gld,gkd->glk", d_seen, kept.value, preferred_element_type=shares.dtype
        )
        mean = jnp.sum((d_seen * kept.seen).astype(shares.dtype), axis=-1, keepdims=True)
        d_logits = (shares * (d_shares - mean)).astype(d_seen.dtype)
        if kept.bias is not None:  # shares are not zero where no key is seen
            d_logits = jnp.where(kept.bias < 0, 0.0, d_logits)
        return (
            jnp.einsum("glk,gkd->gld", d_logits, kept.key),
            over_queries(kept.query, d_logits),
            over_queries(d_seen, shares.astype(d_seen.dtype)),
        )

    def over_queries(x, logits):
        # not as "glk,gld->gkd", for which the logits would be transposed; the barrier keeps XLA
        # from making that of it
        return jnp.swapaxes(lax.optimization_barrier(jnp.einsum("gld,glk->gdk", x, logits)), 1, 2)

    return *_mapped(part, kept, d_seen), None


_in_parts.defvjp(_forward, _backward)


def _mapped(part, *given):
    """part(*given), for a few of the rows of all arrays at a time."""
    rows, length, _ = jax.tree.leaves(given)[0].shape
    at_once = max(1, LOGITS // (length * jax.tree.leaves(given)[1].shape[1]))
    at_once = max(k for k in range(1, rows + 1) if rows % k == 0 and k <= at_once)
    if at_once == rows:
        return part(*given)
    split = jax.tree.map(lambda x: x.reshape(-1, at_once, *x.shape[1:]), given)
    made = lax.map(lambda one: part(*one), split)
    return jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), made)
