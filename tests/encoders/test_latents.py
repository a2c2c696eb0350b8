"""Moments of pictures: kept in a cache by the picture's bytes and view, and how they are spread."""

import dataclasses
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core.errors import BadData
from diffjax.data import transforms
from diffjax.data.broken import BrokenRecord
from diffjax.encoders.autoencoder import latents, spread
from diffjax.encoders.autoencoder.latents import PictureEncoder, Views
from diffjax.models.autoencoder.network import Autoencoder, Sizes

MODEL = Autoencoder(Sizes(8, (1, 1), 1, latent=2))


@functools.cache
def params():
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: 0.2 * random.standard_normal(x.shape).astype(np.float32), shapes)


def image_of(seed, sides=(8, 8)):
    return np.random.default_rng(seed).integers(0, 256, (*sides, 3), np.uint8)


class Records(list):
    """Records that count how often they are read."""

    read = 0

    def __getitem__(self, index):
        Records.read += 1
        return super().__getitem__(index)


def records_of(*seeds, captions=("a cat",), sides=(8, 8)):
    pictures = (transforms.encode_png(image_of(seed, sides)) for seed in seeds)
    return Records([{"image": one, "captions": captions} for one in pictures])


def encoder_of(records, whose="0123", **views):
    return PictureEncoder("tiny", whose, MODEL, params(), Views(8, **views), records)


def truth(image):
    pixels = jnp.asarray(image[None].astype(np.float32) / 127.5 - 1)
    return np.asarray(MODEL.apply({"params": params()}, pixels, method="encode"))[0]


def test_moments_are_those_of_the_picture_rounded_to_16_bits(tmp_path):
    records = records_of(1, 2)
    found = pickle.loads(pickle.dumps(latents.ensure(encoder_of(records), tmp_path)))
    for seed, record in zip((1, 2), records, strict=True):
        moments = found.of(record, None)
        assert moments.dtype == np.float16
        assert moments.shape == (4, 4, 4)
        np.testing.assert_allclose(moments, truth(image_of(seed)), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_half_of_the_views_are_of_the_mirrored_picture_unless_a_caption_names_a_side(tmp_path):
    records = records_of(1) + records_of(2, captions=("a cat", "a dog on the left"))
    found = latents.ensure(encoder_of(records, flip=True), tmp_path)
    assert len(found.found) == 3
    rng, kinds = np.random.default_rng(0), [0, 0]
    plain, mirrored = truth(image_of(1)), truth(image_of(1)[:, ::-1])
    assert np.abs(mirrored - plain[:, ::-1]).max() > 1e-3  # not the mirrored latent
    for _ in range(40):
        moments = found.of(records[0], rng).astype(np.float32)
        away = [np.abs(moments - one).max() for one in (plain, mirrored)]
        kinds[int(np.argmin(away))] += 1
        assert min(away) < 1e-2
        still = found.of(records[1], rng)
        np.testing.assert_allclose(still, truth(image_of(2)), rtol=1e-3, atol=1e-5)
    assert min(kinds) > 8


@pytest.mark.slow
def test_several_squares_of_a_long_picture_are_kept(tmp_path):
    records = records_of(1, sides=(8, 24))
    views = {"aspect": "random", "crops": 3}
    found = latents.ensure(encoder_of(records, **views), tmp_path)
    assert len(found.found) == 3
    rng = np.random.default_rng(0)
    seen = {found.of(records[0], rng).tobytes() for _ in range(30)}
    assert len(seen) == 3
    whole = image_of(1, (8, 24))
    squares = [truth(whole[:, left : left + 8]) for left in range(17)]
    for raw in seen:
        moments = np.frombuffer(raw, np.float16).reshape(4, 4, 4).astype(np.float32)
        assert min(np.abs(moments - one).max() for one in squares) < 1e-2


def test_each_picture_is_encoded_once_and_equal_pictures_share_their_moments(tmp_path, monkeypatch):
    asked, encode = [], PictureEncoder.encode
    monkeypatch.setattr(
        PictureEncoder, "encode", lambda self, keys: (asked.extend(keys), encode(self, keys))[1]
    )
    latents.ensure(encoder_of(records_of(1, 2, 1)), tmp_path)
    assert len(asked) == 2
    latents.ensure(encoder_of(records_of(2, 3)), tmp_path)
    assert len(asked) == 3


def test_records_that_are_all_in_the_cache_are_not_read_again(tmp_path):
    records = records_of(1, 2)
    type(records).fingerprint = lambda self: "two pictures"
    try:
        latents.ensure(encoder_of(records), tmp_path)
        before = Records.read
        latents.ensure(encoder_of(records), tmp_path)
        assert Records.read == before
        latents.ensure(encoder_of(records, flip=True), tmp_path)
        assert Records.read > before
    finally:
        del type(records).fingerprint


def test_a_picture_that_cannot_be_read_or_has_changed_is_broken_for_its_reader(tmp_path):
    records = records_of(1)
    records.append({"image": b"no picture", "captions": ()})
    found = latents.ensure(encoder_of(records), tmp_path)
    with pytest.raises(BrokenRecord, match=r"not a picture|cannot|format"):
        found.of(records[1], None)
    with pytest.raises(BrokenRecord, match="it was another one when latents were made"):
        found.of(records_of(5)[0], None)


def test_a_cache_of_another_autoencoder_or_of_other_squares_is_refused(tmp_path):
    latents.ensure(encoder_of(records_of(1)), tmp_path)
    for other in (encoder_of(records_of(1), whose="4567"), encoder_of(records_of(1), aspect="pad")):
        with pytest.raises(ValueError, match="holds embeddings of tiny"):
            latents.ensure(other, tmp_path)
        assert latents.default_folder(other) != latents.default_folder(encoder_of(records_of(1)))


def test_a_latent_that_16_bits_do_not_hold_is_refused(tmp_path):
    large = {**params(), "moments": jax.tree.map(lambda x: 1e7 * x, params()["moments"])}
    encoder = dataclasses.replace(encoder_of(records_of(1)), params=large)
    with pytest.raises(BadData, match=r"does not fit .*latent.cached=false"):
        latents.ensure(encoder, tmp_path)


def test_the_spread_of_latents_is_that_of_many_draws():
    random = np.random.default_rng(0)
    mean = random.normal([1.0, -2.0], [0.5, 3.0], (5, 4, 4, 2))
    log_variance = random.normal(-1.0, 0.3, (5, 4, 4, 2))
    found = spread.measure(np.concatenate([mean, log_variance], axis=-1), 2)
    draws = mean + np.exp(0.5 * log_variance) * random.standard_normal((2000, 5, 4, 4, 2))
    assert found.pictures == 5
    np.testing.assert_allclose(found.mean, draws.mean(axis=(0, 1, 2, 3)), atol=0.01)
    np.testing.assert_allclose(found.std, draws.std(axis=(0, 1, 2, 3)), rtol=0.01)
    over_all = found.over_all()
    np.testing.assert_allclose(over_all, (draws.mean(), draws.std()), rtol=0.02)


def test_points_of_a_codebook_are_measured_as_they_are():
    points = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float16)
    found = spread.measure(points, 2)
    flat = points.astype(np.float64).reshape(-1, 2)
    np.testing.assert_allclose(found.std, flat.std(axis=0), rtol=1e-6)
