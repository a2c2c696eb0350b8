"""A frozen CLIP: unit vectors of pictures and captions, and its text tower as an encoder."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from diffjax.devices.mesh import make_mesh
from diffjax.encoders.clip import encoder, weights
from diffjax.encoders.text import load_encoder
from diffjax.models.clip.clip import CLIP
from tests.encoders.clip import small

GOLDEN = Path(__file__).parents[2] / "golden"
CAPTIONS = ["a red apple", "", "two blue birds in the sky and a long old man", "a red apple"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small.write(tmp_path_factory.mktemp("clips") / "small")


@pytest.fixture(scope="module")
def clip(folder):
    return encoder.load(folder)


def test_features_are_unit_vectors_and_do_not_depend_on_the_batch(clip):
    pictures = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 3), np.uint8)
    image, text = clip.of_pictures(pictures), clip.of_captions(CAPTIONS)
    assert (image.shape, text.shape) == ((70, 8), (4, 8))
    for rows in (image, text):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(clip.of_pictures(pictures[65:67]), image[65:67], atol=1e-5)
    np.testing.assert_array_equal(text[0], text[3])


def test_pictures_of_another_size_are_made_the_networks(clip):
    flat = np.full((1, 40, 40, 3), 99, np.uint8)
    np.testing.assert_allclose(
        clip.of_pictures(flat), clip.of_pictures(flat[:, :16, :16]), atol=1e-5
    )


def test_a_clip_is_a_text_encoder(folder, clip):
    """Its embeddings are the states of the text tower, the same alone and in a batch."""
    made = load_encoder(f"clip:{folder}", max_length=20)
    assert (made.name, made.width, made.max_length) == ("clip:small", 16, 20)
    embeddings, mask = made.encode(CAPTIONS)
    ids = np.stack([clip.words.padded(text, 20) for text in CAPTIONS])
    states = CLIP(clip.config).apply(
        {"params": clip.params}, jnp.asarray(ids), method="states_of_text"
    )
    np.testing.assert_array_equal(mask.sum(1), (ids > 0).sum(1))
    np.testing.assert_allclose(embeddings[mask], states[:, : mask.shape[1]][mask], atol=1e-5)
    assert not np.any(embeddings[~mask])
    alone, seen = made.encode(CAPTIONS[:1])
    np.testing.assert_allclose(alone[0][seen[0]], embeddings[0][mask[0]], atol=1e-5)


def test_a_text_encoder_is_the_same_on_a_mesh(folder):
    one = load_encoder(f"clip:{folder}", max_length=20)
    many = load_encoder(f"clip:{folder}", max_length=20, mesh=make_mesh(2, 1, 2, jax.devices()[:4]))
    for mine, theirs in zip(one.encode(CAPTIONS), many.encode(CAPTIONS), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_the_states_are_those_of_hugging_face():
    want = load_file(GOLDEN / "clip/answers.safetensors")
    config, params = weights.load(GOLDEN / "clip/hugging_face")
    tokens = jnp.asarray(want["tokens"])
    states = jax.jit(
        lambda ids: CLIP(config).apply({"params": params}, ids, method="states_of_text")
    )(tokens)
    np.testing.assert_allclose(states, want["hugging_face/states"], atol=1e-5)


def test_what_cannot_be_opened_is_refused_with_a_reason(folder, tmp_path):
    with pytest.raises(ValueError, match="reads 20 tokens at most, not 96"):
        load_encoder(f"clip:{folder}")
    with pytest.raises(ValueError, match="neither a folder, a file, nor a name"):
        load_encoder("clip:/absent/place")
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    shutil.copy(GOLDEN / "clip_merges.txt.gz", other / "bpe_simple_vocab_16e6.txt.gz")
    (other / "merges.txt").unlink()
    with pytest.raises(ValueError, match="1538 tokens, its vocabulary has 3514"):
        encoder.load(other)


def test_other_weights_or_merges_have_another_fingerprint(folder, clip, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    assert encoder.load(other).fingerprint == clip.fingerprint
    lines = (other / "merges.txt").read_text().splitlines()
    (other / "merges.txt").write_text("\n".join([lines[0], lines[2], lines[1], *lines[3:]]))
    assert encoder.load(other).fingerprint != clip.fingerprint
