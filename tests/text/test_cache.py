import pickle

import ml_dtypes
import numpy as np
import pytest

from diffjax import text
from diffjax.text import cache
from tests.text.test_encoder import CAPTIONS, write


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return text.load_encoder(write(tmp_path_factory.mktemp("encoders") / "tiny"), max_length=40)


@pytest.fixture
def counted(encoder, monkeypatch):
    """The captions that `encode` was asked for."""
    asked = []
    plain = type(encoder).encode
    monkeypatch.setattr(
        type(encoder), "encode", lambda self, c, **k: (asked.extend(c), plain(self, c, **k))[1]
    )
    return asked


def test_a_caption_looked_up_is_the_caption_encoded(encoder, tmp_path):
    made = cache.build(tmp_path / "c.safetensors", encoder, CAPTIONS, batch_size=2)
    embeddings, mask = (np.asarray(x) for x in encoder.encode(CAPTIONS))
    for caption, row, length in zip(CAPTIONS, embeddings, mask.sum(1), strict=True):
        found = made[caption]
        assert found.dtype == ml_dtypes.bfloat16
        assert found.shape == (length, encoder.width)
        np.testing.assert_allclose(found.astype(np.float32), row[:length], rtol=2**-7, atol=1e-5)


def test_a_caption_is_stored_once_and_without_padding(encoder, counted, tmp_path):
    made = cache.build(tmp_path / "c.safetensors", encoder, CAPTIONS * 3)
    assert len(made) == len(counted) == len(set(CAPTIONS))
    assert made.tokens.shape == (12 + 1 + 15, encoder.width)


def test_every_caption_comes_back_from_disk(encoder, tmp_path):
    captions = ["naïve ☕", "tab\tand\nnewline", "x" * 60, "", *map(str, range(30))]
    made = cache.build(tmp_path / "c.safetensors", encoder, captions, batch_size=8)
    again = cache.open_cache(tmp_path / "c.safetensors", encoder)
    assert list(again.index) == captions
    assert again.header == made.header == cache.header_of(encoder)
    for caption in captions:
        assert again[caption].tobytes() == made[caption].tobytes()
        assert caption in again
    assert len(again["x" * 60]) == 40  # cut at max_length, as encode cuts it


def test_batch_pads_to_the_asked_for_length(encoder, tmp_path):
    made = cache.build(tmp_path / "c.safetensors", encoder, CAPTIONS)
    embeddings, mask = made.batch(CAPTIONS, 20)
    assert embeddings.shape == (4, 20, encoder.width)
    np.testing.assert_array_equal(mask.sum(1), [12, 1, 15, 12])
    assert not np.any(embeddings[~mask])
    with pytest.raises(ValueError, match="length=14, but a caption has 15"):
        made.batch(CAPTIONS, 14)


def test_an_unknown_caption_is_an_error_that_names_it(encoder, tmp_path):
    made = cache.build(tmp_path / "c.safetensors", encoder, CAPTIONS)
    with pytest.raises(KeyError, match="no caption 'a pear' among its 3"):
        made["a pear"]


def test_the_cache_of_another_encoder_is_one_line_that_names_both(encoder, tmp_path):
    path = tmp_path / "c.safetensors"
    cache.build(path, encoder, CAPTIONS)
    other = text.load_encoder(
        write(tmp_path / "other", lambda p: p | {"embedding": p["embedding"] * 2}), max_length=40
    )
    with pytest.raises(ValueError, match=r"holds embeddings of tiny \(.*, want other \(") as caught:
        cache.open_cache(path, other)
    assert "\n" not in str(caught.value)
    longer = text.load_encoder(tmp_path / "other", max_length=41)
    with pytest.raises(ValueError, match=r"max_length 40.*max_length 41"):
        cache.open_cache(cache.build(path, other, ["a"]).path, longer)


def test_ensure_encodes_only_what_is_missing(encoder, counted, tmp_path):
    path = tmp_path / "deep" / "c.safetensors"
    first = cache.ensure(path, encoder, CAPTIONS)
    before = path.stat().st_mtime_ns
    counted.clear()
    cache.ensure(path, encoder, CAPTIONS[:2])
    assert path.stat().st_mtime_ns == before
    more = cache.ensure(path, encoder, ["a pear", CAPTIONS[0]])
    assert counted == ["a pear"]
    assert list(more.index) == ["a red apple", "", "two blue birds", "a pear"]
    assert more["two blue birds"].tobytes() == first["two blue birds"].tobytes()


def test_ensure_makes_anew_what_another_encoder_made_and_says_so(encoder, tmp_path, caplog):
    path = tmp_path / "c.safetensors"
    cache.build(path, text.load_encoder(write(tmp_path / "other"), max_length=30), CAPTIONS)
    assert cache.ensure(path, encoder, ["a pear"]).header == cache.header_of(encoder)
    assert "other" in caplog.text


def test_a_failed_build_leaves_the_old_file_and_no_other(encoder, tmp_path):
    path = tmp_path / "c.safetensors"
    cache.build(path, encoder, CAPTIONS)

    def fail(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.build(path, encoder, ["a pear"], progress=fail)
    assert list(cache.open_cache(path).index) == ["a red apple", "", "two blue birds"]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_progress_counts_the_captions_to_do(encoder, tmp_path):
    seen = []
    cache.build(
        tmp_path / "c", encoder, list("abcde"), batch_size=2, progress=lambda *n: seen.append(n)
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a cache at all"),
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
    ],
)
def test_what_is_no_cache_is_an_error_that_names_it(encoder, tmp_path, damage):
    path = tmp_path / "c.safetensors"
    cache.build(path, encoder, CAPTIONS)
    damage(path)
    with pytest.raises(ValueError, match=r"c.safetensors: (no such|not an) embeddings cache"):
        cache.open_cache(path)


def test_a_cache_pickles_as_its_path(encoder, tmp_path):
    made = cache.build(tmp_path / "c.safetensors", encoder, ["a" * 39] * 2 + ["b" * 39])
    pickled = pickle.dumps(made)
    assert len(pickled) < 1000
    assert pickle.loads(pickled)["b" * 39].tobytes() == made["b" * 39].tobytes()


def test_no_captions_make_an_empty_cache(encoder, tmp_path):
    assert len(cache.build(tmp_path / "c.safetensors", encoder, [])) == 0
