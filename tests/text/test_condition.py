import jax
import jax.numpy as jnp
import numpy as np

from diffjax.text import drop_text, mask_from_length, null_text


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
