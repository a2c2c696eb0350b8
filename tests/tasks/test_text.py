import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.encoders.cache import cache
from diffjax.encoders.t5 import load_encoder
from diffjax.tasks.conditions import Text
from diffjax.tasks.text import drop_text, mask_from_length, null_text
from tests.tasks.stages import KEY, MIXED, loss_of
from tests.tiny_t5 import save_tiny


def text_and_mask(seed, lengths):
    mask = mask_from_length(jnp.array(lengths), 6)
    text = jax.random.normal(jax.random.key(seed), (len(lengths), 6, 4)) * mask[..., None]
    return text, mask


def test_mask_has_as_many_ones_as_the_length():
    mask = mask_from_length(jnp.array([0, 1, 5, 9]), 6)
    np.testing.assert_array_equal(mask.sum(1), [0, 1, 5, 6])
    np.testing.assert_array_equal(mask, np.sort(mask, axis=1)[:, ::-1])


def test_null_text_is_the_same_whatever_the_prompt_its_length_and_its_padding():
    one, other = text_and_mask(0, [6, 1, 0]), text_and_mask(1, [2, 3, 5])
    for a, b in zip(null_text(*one), null_text(*other), strict=True):
        np.testing.assert_array_equal(a, b)
    text, mask = null_text(*one)
    assert not np.any(text)
    np.testing.assert_array_equal(mask, [[True] + [False] * 5] * 3)


def test_no_gradient_flows_from_null_text_to_the_prompt():
    text, mask = text_and_mask(0, [6, 2])
    grad = jax.grad(lambda t: jnp.sum(jnp.cos(null_text(t, mask)[0])))(text)
    assert not np.any(grad)


def test_drop_text_replaces_the_rows_not_kept_and_no_other():
    text, mask = text_and_mask(0, [6, 2, 3])
    keep = jnp.array([True, False, True])
    dropped, dropped_mask = drop_text(text, mask, keep)
    np.testing.assert_array_equal(dropped[keep], text[keep])
    np.testing.assert_array_equal(dropped_mask[keep], mask[keep])
    no_text, no_mask = null_text(text, mask)
    np.testing.assert_array_equal(dropped[1], no_text[1])
    np.testing.assert_array_equal(dropped_mask[1], no_mask[1])


def test_a_nan_in_a_dropped_prompt_does_not_leak():
    text, mask = text_and_mask(0, [6, 2])
    dropped, _ = drop_text(text.at[1].set(jnp.nan), mask, jnp.array([True, False]))
    assert np.all(np.isfinite(dropped))


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """(texts by where they come from, their lengths, text -> a training step's loss)."""
    folder = tmp_path_factory.mktemp("training")
    encoder = load_encoder(save_tiny(folder), max_length=16)
    captions = ["a red apple", "", "two blue birds", "a dog"]
    made = cache.ensure(folder / "cache", encoder, captions)
    fly, mask = encoder.encode(captions, 16)
    cached, cached_mask = made.batch(captions, 16)
    np.testing.assert_array_equal(mask, cached_mask)
    task = dataclasses.replace(MIXED, conditions=(Text(encoder.width, 16),))
    random = np.random.default_rng(0)
    draw = lambda leaf: 0.1 * random.standard_normal(leaf.shape, np.float32)  # noqa: E731
    params = jax.tree.map(draw, jax.eval_shape(task.init, KEY))
    image = random.integers(0, 256, (4, 16, 16, 3), np.uint8)

    @jax.jit
    def loss(text, length):
        batch = {"image": jnp.asarray(image), "text": text, "text_length": length}
        return loss_of(task, params, batch).per_example.mean()

    texts = {"cached": np.asarray(cached, np.float32), "fly": np.asarray(fly)}
    return texts, np.asarray(mask.sum(1), np.int32), loss


def test_a_step_with_cached_embeddings_is_one_with_embeddings_made_on_the_fly(training):
    """To the bit once both are bfloat16, as the cache keeps them; else to bfloat16's precision."""
    texts, lengths, loss = training
    rounded = texts["fly"].astype(jnp.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(texts["cached"], rounded)
    assert float(loss(texts["cached"], lengths)) == float(loss(rounded, lengths))
    in_full = float(loss(texts["fly"], lengths))
    assert float(loss(texts["cached"], lengths)) == pytest.approx(in_full, rel=2**-8)


def test_what_stands_under_the_padding_reaches_no_loss_and_the_mask_does(training):
    texts, lengths, loss = training
    under = np.arange(16)[None] >= lengths[:, None]
    spoilt = np.where(under[..., None], 50.0, texts["fly"]).astype(np.float32)
    assert float(loss(spoilt, lengths)) == float(loss(texts["fly"], lengths))
    assert float(loss(texts["fly"], np.maximum(lengths - 1, 1))) != float(
        loss(texts["fly"], lengths)
    )
