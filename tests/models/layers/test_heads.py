"""Attention of heads in parts, and dense layers as products of two matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models.layers import heads
from diffjax.models.layers.dense import Dense
from tests.diffusion.helpers import images

B, LENGTH, KEYS, N, D = 2, 6, 5, 3, 4
SEEN = jnp.arange(KEYS) < jnp.array([[2], [KEYS]])
NONE_SEEN = jnp.arange(KEYS) < jnp.array([[2], [0]])  # of the second example


def numbers(seed, *shape):
    """Random numbers that do not depend on the machine."""
    return images(seed, (*shape, 1, 1, 1))[..., 0, 0, 0]


def by_definition(query, key, value, seen, d_answer):
    """NumPy float64, a query at a time: softmax(q k^T / sqrt(d)) v and its gradients."""
    query, key, value, d_answer = (np.asarray(x, np.float64) for x in (query, key, value, d_answer))
    answer = np.zeros_like(query)
    d_query, d_key, d_value = (np.zeros_like(x) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5
    for i, row, n in np.ndindex(query.shape[:3]):
        k, v = key[i, :, n], value[i, :, n]
        share = np.where(seen[i, row], np.exp(k @ query[i, row, n] * scale), 0.0)
        share /= share.sum()
        answer[i, row, n] = share @ v
        d_share = v @ d_answer[i, row, n]
        d_logit = share * (d_share - share @ d_share) * scale
        d_query[i, row, n] = d_logit @ k
        d_key[i, :, n] += np.outer(d_logit, query[i, row, n])
        d_value[i, :, n] += np.outer(share, d_answer[i, row, n])
    return answer, d_query, d_key, d_value


@pytest.mark.parametrize("logits", [1, 60, 2**20])  # a head at a time, two, all
@pytest.mark.parametrize("which", ["all", "masked", "causal"])
def test_attention_and_its_gradient_equal_their_definition_in_float64(which, logits, monkeypatch):
    monkeypatch.setattr(heads, "LOGITS", logits)
    keys = LENGTH if which == "causal" else KEYS
    query, key, value, d_answer = (
        numbers(i, B, length, N, D) for i, length in enumerate((LENGTH, keys, keys, LENGTH))
    )
    mask = SEEN[:, None, None] if which == "masked" else None
    seen = np.ones((B, LENGTH, keys), bool)
    seen = np.tril(seen) if which == "causal" else seen
    seen = np.broadcast_to(SEEN[:, None], seen.shape) if which == "masked" else seen

    def attend(query, key, value):
        return heads.attend(query, key, value, mask, causal=which == "causal")

    answer, back = jax.vjp(attend, query, key, value)
    found = (answer, *back(d_answer))
    for got, want in zip(found, by_definition(query, key, value, seen, d_answer), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_where_no_key_is_seen_answers_and_gradients_are_those_of_jax():
    query, key, value, d_answer = (
        numbers(i, B, length, N, D) for i, length in enumerate((LENGTH, KEYS, KEYS, LENGTH))
    )
    mask = NONE_SEEN[:, None, None]
    answers = []
    for attend in (heads.attend, jax.nn.dot_product_attention):
        answer, back = jax.vjp(lambda *given: attend(*given, mask=mask), query, key, value)  # noqa: B023
        answers.append((answer, *back(d_answer)))
    for got, want in zip(*answers, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_logits_of_a_few_heads_alone_are_in_memory_also_in_the_backward_pass(monkeypatch):
    length, num = 128, 16
    monkeypatch.setattr(heads, "LOGITS", length**2)
    x = jax.ShapeDtypeStruct((1, length, num, 4), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(heads.attend(x, x, x) ** 2)))
    used = gradient.lower(x).compile().memory_analysis().temp_size_in_bytes
    assert used < 4 * num * length**2  # the logits of all heads


@pytest.mark.parametrize(("wide", "out"), [(3, 8), (8, 3)])
def test_a_dense_layer_and_its_gradient_equal_sums_in_float64(wide, out):
    x, d_answer = numbers(0, 2, 5, wide), numbers(1, 2, 5, out)
    layer = Dense(out)
    params = {"kernel": numbers(2, wide, out), "bias": numbers(3, out)}
    answer, back = jax.vjp(lambda params, x: layer.apply({"params": params}, x), params, x)
    found, d_x = back(d_answer)
    x, d_answer, kernel = (np.asarray(v, np.float64) for v in (x, d_answer, params["kernel"]))
    for got, want in (
        (answer, np.einsum("blc,cd->bld", x, kernel) + np.asarray(params["bias"])),
        (d_x, np.einsum("bld,cd->blc", d_answer, kernel)),
        (found["kernel"], np.einsum("blc,bld->cd", x, d_answer)),
        (found["bias"], d_answer.sum((0, 1))),
    ):
        np.testing.assert_allclose(got, want, atol=1e-5)
