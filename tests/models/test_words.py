"""The text transformer inside a network of pictures, and GLIDE's networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models.clip.sizes import Tower
from diffjax.models.unet import UNet
from diffjax.models.words import NO_TOKEN, TextTransformer, Words
from tests.diffusion.helpers import images
from tests.models.parameters import anywhere

SMALL = Words(Tower(8, 2, 2, 32), vocabulary=11, length=5)
IDS = jnp.array([[3, 10, 0, NO_TOKEN, NO_TOKEN], [7, NO_TOKEN, NO_TOKEN, NO_TOKEN, NO_TOKEN]])
EMPTY = jnp.full((1, 5), NO_TOKEN)
NET = UNet(width=16, mults=(1,), num_blocks=1, attention_levels=(0,), head_width=16, words=SMALL)


@functools.cache
def params():
    return anywhere(TextTransformer(SMALL), ids=IDS)


@functools.partial(jax.jit, static_argnames="heads_first")
def run(own, ids, heads_first=False):
    return TextTransformer(SMALL, heads_first=heads_first).apply({"params": own}, ids)


def states(ids, own=None, **fields):
    return run(params() if own is None else own, jnp.resize(ids, (2, ids.shape[1])), **fields)


def test_states_are_normalised_and_each_place_sees_all_also_later_ones():
    found = states(IDS)
    own = params()["norm_out"]
    plain = (np.asarray(found) - own["bias"]) / own["scale"]
    np.testing.assert_allclose(plain.mean(-1), 0, atol=1e-3)
    np.testing.assert_allclose(plain.std(-1), 1, atol=1e-2)
    later = states(IDS.at[0, 2].set(4))
    assert float(jnp.abs(later - found)[0].min(-1).max()) > 1e-4
    assert float(jnp.abs(later - found)[0].max(-1).min()) > 1e-4
    np.testing.assert_allclose(later[1], found[1], atol=1e-6)


def test_a_place_without_a_token_has_a_vector_of_its_own_and_no_token_counts_there():
    """Its position and the token 0 leave no trace; the vector of that place does."""
    found, own = states(EMPTY), params()
    same = {**own, "tokens": own["tokens"] + 1.0, "positions": own["positions"] + 1.0}
    np.testing.assert_array_equal(states(EMPTY, same), found)
    other = {**own, "padding": own["padding"].at[4, 0].add(1.0)}
    assert float(jnp.abs(states(EMPTY, other) - found).max()) > 1e-2
    assert float(jnp.abs(states(jnp.zeros((1, 5), int)) - found).max()) > 1e-2


def test_the_order_of_heads_moves_numbers_and_not_the_states():
    moved = lambda x: jnp.moveaxis(x.reshape(-1, 3, 2, 4), 1, 2).reshape(x.shape)  # noqa: E731
    blocks = {
        name: {**block, "qkv": jax.tree.map(moved, block["qkv"])}
        for name, block in params()["blocks"].items()
    }
    found = states(IDS, {**params(), "blocks": blocks}, heads_first=True)
    np.testing.assert_allclose(found, states(IDS), atol=1e-5)


def test_a_text_of_another_length_is_refused():
    with pytest.raises(ValueError, match="4 places for tokens, want 5"):
        states(IDS[:, :4])


@pytest.mark.slow
def test_the_picture_hears_the_last_place_in_its_embedding_and_all_places_in_its_attention():
    given = dict(x_t=images(0, (2, 4, 4, 3)), logsnr_t=jnp.zeros(2), tokens=IDS)
    own = anywhere(NET, **given)
    draw = jax.jit(lambda p, **given: NET.apply({"params": p}, **given))
    found = draw(own, **given)
    for deaf in ("last_token", "text_kv"):
        silent = jax.tree_util.tree_map_with_path(
            lambda path, x, deaf=deaf: 0 * x if deaf in str(path) else x, own
        )
        other = {**given, "tokens": IDS[::-1]}
        assert float(jnp.abs(draw(silent, **given) - found).max()) > 1e-4, deaf
        assert float(jnp.abs(draw(silent, **other) - draw(silent, **given)).max()) > 1e-4, deaf
    with_vector = {**given, "vector": images(1, (2, 1, 1, 6))[:, 0, 0]}
    shapes = jax.eval_shape(NET.init, jax.random.key(0), **with_vector)["params"]["conditioning"]
    assert shapes["vector_tokens"]["kernel"].shape == (6, 4 * 8)
