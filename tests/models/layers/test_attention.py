import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models.layers import attention
from diffjax.models.layers.attention import Attention
from diffjax.models.layers.blocks import num_groups
from tests.diffusion.helpers import images
from tests.models.layers.naive import numpy_group_norm


def setup(kind, length=5):
    h = images(0, (2, 3, 4, 16))
    tokens = images(1, (2, length, 6, 1))[..., 0]
    mask = jnp.arange(length)[None, :] < jnp.array([[2], [length]])
    module = Attention(head_width=8, kind=kind)
    params = module.init(jax.random.key(0), h, tokens, mask)["params"]
    # the output projection starts at zero, so make it random
    params["out"]["kernel"] = jax.random.normal(jax.random.key(2), (16, 16)) / 4
    return module, params, h, tokens, mask


def numpy_attention(params, h, tokens, mask, kind):
    """Attention in float64 by its definition, one head and one row at a time."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    b, height, width, c = h.shape
    pixels = numpy_group_norm(h, num_groups(c)).reshape(b, height * width, c)
    text_key, text_value = np.split(np.asarray(tokens) @ p["text_kv"]["kernel"], 2, axis=-1)
    if kind == "self":
        query, key, value = np.split(pixels @ p["qkv"]["kernel"], 3, axis=-1)
        key, value = np.concatenate([key, text_key], 1), np.concatenate([value, text_value], 1)
        seen = np.concatenate([np.ones((b, height * width), bool), mask], axis=1)
    else:
        query, key, value, seen = pixels @ p["q"]["kernel"], text_key, text_value, np.asarray(mask)
    out = np.zeros_like(pixels)
    for i in range(b):
        for head in range(c // 8):
            s = slice(8 * head, 8 * head + 8)
            score = query[i][:, s] @ key[i][seen[i]][:, s].T / np.sqrt(8)
            weight = np.exp(score - score.max(-1, keepdims=True))
            weight /= weight.sum(-1, keepdims=True)
            out[i][:, s] = weight @ value[i][seen[i]][:, s]
    out = out @ p["out"]["kernel"] + p["out"]["bias"]
    return np.asarray(h) + out.reshape(h.shape)


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_attention_equals_its_definition_in_float64(kind):
    module, params, h, tokens, mask = setup(kind)
    got = module.apply({"params": params}, h, tokens, mask)
    np.testing.assert_allclose(got, numpy_attention(params, h, tokens, mask, kind), atol=2e-5)


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_masked_tokens_are_ignored(kind):
    module, params, h, tokens, mask = setup(kind)
    other = jnp.where(mask[:, :, None], tokens, 1e3)
    np.testing.assert_allclose(
        module.apply({"params": params}, h, tokens, mask),
        module.apply({"params": params}, h, other, mask),
        atol=1e-5,
    )


def test_a_new_attention_is_the_identity():
    module, _, h, tokens, mask = setup("self")
    variables = module.init(jax.random.key(0), h, tokens, mask)
    np.testing.assert_array_equal(module.apply(variables, h, tokens, mask), h)


def test_channels_that_are_not_a_multiple_of_head_width_are_refused():
    h = images(0, (2, 3, 4, 12))
    with pytest.raises(ValueError, match="12 channels: not a multiple of head_width 8"):
        Attention(8).init(jax.random.key(0), h, jnp.zeros((2, 5, 6)), jnp.ones((2, 5), bool))


def test_fused_attention_is_tried_only_on_a_gpu_in_half_precision(monkeypatch):
    attention.fastest_implementation.cache_clear()
    assert attention.fastest_implementation(jnp.bfloat16) is None  # this is a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    attention.fastest_implementation.cache_clear()
    assert attention.fastest_implementation(jnp.float32) is None
    # cuDNN cannot run here, so the trial must return None and not raise
    assert attention.fastest_implementation(jnp.bfloat16) is None
    attention.fastest_implementation.cache_clear()


def test_the_number_of_heads_can_be_given():
    h, tokens, mask = images(0, (2, 3, 4, 32)), jnp.ones((2, 5, 6)), jnp.ones((2, 5), bool)
    params = Attention(8, num_heads=2).init(jax.random.key(0), h, tokens, mask)["params"]
    assert params["qkv"]["kernel"].shape == (32, 3 * 16)
    assert params["text_kv"]["kernel"].shape == (6, 2 * 16)
    assert params["out"]["kernel"].shape == (16, 32)


def test_without_text_pixels_attend_to_themselves_and_cross_attention_is_refused():
    h = images(0, (2, 3, 4, 16))
    params = Attention(8).init(jax.random.key(0), h, None, None)["params"]
    assert "text_kv" not in params
    with pytest.raises(ValueError, match="there is none"):
        Attention(8, "cross").init(jax.random.key(0), h, None, None)
