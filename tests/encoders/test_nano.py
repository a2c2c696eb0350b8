"""The shipped encoder is small and deterministic, and places paraphrases near each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.encoders import weights
from diffjax.encoders.t5 import SHIPPED, load_encoder
from diffjax.models import t5

FOLDER = SHIPPED["t5-nano"]
BAR = 0.7
# The phrases of a pair mean the same and share few letters.
PARAPHRASES = [
    ("a happy face", "someone smiling with joy"),
    ("a puppy", "a small young dog"),
    ("a red apple", "a crimson fruit"),
    ("an airplane", "a jet flying in the sky"),
    ("a ship on the sea", "a boat sailing the ocean"),
    ("a big house", "a large home building"),
    ("a physician", "a doctor in a hospital"),
    ("a car", "an automobile with four wheels"),
    ("snow in winter", "cold weather with ice"),
    ("the king", "a royal ruler with a crown"),
    ("a violin", "a stringed musical instrument"),
    ("a soccer player", "someone kicking a football"),
    ("a bread roll", "food from the bakery"),
    ("an angry man", "a furious person"),
    ("a love heart", "a symbol of romance"),
    ("the flag of France", "the French national banner"),
    ("a clock", "a device showing the time"),
    ("a tree", "a plant with leaves and wood"),
    ("an elephant", "a huge animal with a trunk"),
    ("a book", "something to read with pages"),
]


def retrieved(apply, tokens):
    """The share of phrases whose nearest neighbour among all others is their paraphrase."""
    phrases = [phrase for pair in PARAPHRASES for phrase in pair]
    ids, mask = tokens(phrases)
    h = np.asarray(apply(jnp.asarray(ids), jnp.asarray(mask)))
    x = h.sum(1) / mask.sum(1, keepdims=True)
    x = x - x.mean(0)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = np.where(np.eye(len(x), dtype=bool), -np.inf, x @ x.T)
    return np.mean(cosine.argmax(1) == np.arange(len(x)) ^ 1)


@pytest.fixture(scope="module")
def nano():
    return load_encoder("t5-nano")


def test_the_shipped_encoder_takes_at_most_8_megabytes_and_has_a_readme():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 8_000_000
    card = (FOLDER / "README.md").read_text()
    assert "all-MiniLM-L6-v2" in card
    assert "Apache-2.0" in card


def test_the_shipped_encoder_is_the_same_by_name_and_by_path(nano):
    assert nano.name == "t5-nano"
    assert nano.tokens.ids("a", 96) == [100, 1]
    assert load_encoder(FOLDER).fingerprint == nano.fingerprint


def test_the_shipped_encoder_gives_the_same_bits_again(nano):
    first = np.asarray(nano.encode(["a red apple, openmoji style"])[0])
    again = load_encoder("t5-nano").encode(["a red apple, openmoji style"])[0]
    assert first.tobytes() == np.asarray(again).tobytes()
    assert np.all(np.isfinite(first))


@pytest.mark.slow
def test_paraphrases_are_neighbours_only_after_training(nano):
    assert retrieved(lambda ids, mask: nano.apply(nano.params, ids, mask), nano.tokenize) >= BAR

    model = t5.T5Encoder(weights.load_config(FOLDER))
    ids = jnp.ones((1, 4), jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), ids, ids > 0)
    assert retrieved(lambda ids, mask: model.apply(params, ids, mask), nano.tokenize) < BAR / 2
