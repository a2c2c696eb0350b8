import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models.layers import embedding


def test_sinusoids_distinguish_levels_over_the_whole_range():
    logsnr = jnp.arange(-20.0, 20.0, 0.05)
    waves = np.asarray(embedding.sinusoids(logsnr, 64))
    distance = np.linalg.norm(waves[:, None] - waves[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert distance.min() > 0.5
    np.testing.assert_allclose(np.linalg.norm(waves, axis=1), np.sqrt(32), rtol=1e-4)


def test_noise_levels_are_embedded_in_float32():
    """In bfloat16, 10.00 and 10.03 are equal, so the embedding must not be computed in it."""
    module = embedding.NoiseLevelEmbedding(32)
    variables = module.init(jax.random.key(0), jnp.zeros(1))
    out = module.apply(variables, jnp.array([10.0, 10.03]))
    assert out.dtype == jnp.float32
    assert not np.allclose(out[0], out[1], atol=1e-3)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="width 7"):
        embedding.sinusoids(jnp.zeros(1), 7)


@pytest.fixture(scope="module")
def conditioning():
    module = embedding.Conditioning(32, 16)
    text = jax.random.normal(jax.random.key(1), (2, 5, 8))
    mask = jnp.array([[True] * 3 + [False] * 2, [True] * 5])
    variables = module.init(jax.random.key(0), jnp.zeros(2), text, mask, jnp.zeros(2))
    return module, variables, text, mask


def test_padding_does_not_change_the_pooled_text(conditioning):
    module, variables, text, mask = conditioning
    other = jnp.where(mask[:, :, None], text, 99.0)
    one, *_ = module.apply(variables, jnp.zeros(2), text, mask, jnp.zeros(2))
    two, *_ = module.apply(variables, jnp.zeros(2), other, mask, jnp.zeros(2))
    np.testing.assert_allclose(one, two, atol=1e-6)
    longer = jnp.pad(text, ((0, 0), (0, 4), (0, 0)))
    three, *_ = module.apply(
        variables, jnp.zeros(2), longer, jnp.pad(mask, ((0, 0), (0, 4))), jnp.zeros(2)
    )
    np.testing.assert_allclose(one, three, atol=1e-6)


def test_every_condition_changes_the_embedding(conditioning):
    module, variables, text, mask = conditioning
    base, tokens, _ = module.apply(variables, jnp.zeros(2), text, mask, jnp.zeros(2))
    assert tokens.shape == (2, 5, 16)
    for changed in (
        (jnp.ones(2), text, mask, jnp.zeros(2)),
        (jnp.zeros(2), text[::-1], mask, jnp.zeros(2)),
        (jnp.zeros(2), text, mask, jnp.ones(2)),
    ):
        emb, *_ = module.apply(variables, *changed)
        assert float(jnp.abs(emb - base).max()) > 1e-3


def test_a_vector_is_added_to_the_embedding_and_is_four_more_tokens_that_are_always_seen():
    """Ramesh et al. 2022, sec. 2.1; zeros, which stand for no vector, are one learned vector."""
    module = embedding.Conditioning(8, 6)
    text, vector = jnp.ones((2, 3, 5)), jax.random.normal(jax.random.key(1), (2, 4))
    hidden = jnp.zeros((2, 3), bool).at[:, 0].set(True)
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), jnp.zeros(2), text, hidden, vector=vector)
    )
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), shapes)
    says = jax.jit(lambda v: module.apply(variables, jnp.zeros(2), text, hidden, vector=v))
    emb, tokens, mask = says(vector)
    assert tokens.shape == (2, 3 + embedding.VECTOR_TOKENS, 6)
    np.testing.assert_array_equal(mask, [[True, False, False, True, True, True, True]] * 2)
    other_emb, other_tokens, _ = says(vector[::-1])
    np.testing.assert_array_equal(tokens[:, :3], other_tokens[:, :3])
    assert float(jnp.abs(tokens[:, 3:] - other_tokens[:, 3:]).min(axis=(1, 2)).max()) > 0
    assert float(jnp.abs(emb - other_emb).max()) > 1e-2
    nothing, none, _ = says(jnp.zeros((2, 4)))
    np.testing.assert_allclose(nothing[0], nothing[1], atol=1e-6)
    assert float(jnp.abs(none[0, 3:]).max()) > 0.1


def test_a_canvas_equals_a_dense_layer_to_all_pixels():
    canvas = embedding.Canvas(width=5, channels=4)
    emb = jax.random.normal(jax.random.key(1), (2, 8))
    params = canvas.init(jax.random.key(0), emb, 2, 3)["params"]
    np.testing.assert_array_equal(canvas.apply({"params": params}, emb, 2, 3), 0.0)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: rng.normal(size=p.shape), params)
    told = np.asarray(emb, np.float64) @ params["draw"]["kernel"] + params["draw"]["bias"]
    drawn = (told / (1 + np.exp(-told))).reshape(2, 2, 3, 4)  # silu
    want = np.stack([[[drawn[b, y, x] @ params["out"]["kernel"] for x in range(3)]
                      for y in range(2)] for b in range(2)])  # fmt: skip
    made = canvas.apply({"params": jax.tree.map(jnp.float32, params)}, emb, 2, 3)
    np.testing.assert_allclose(made, want, rtol=1e-5, atol=1e-5)
