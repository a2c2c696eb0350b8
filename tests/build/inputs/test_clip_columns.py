"""The vectors of a CLIP as columns: computed once, by the CLIP that the config names."""

from pathlib import Path

import numpy as np
import pytest

from diffjax.build.inputs import clip_columns, columns, reading, vectors
from diffjax.build.options import config
from diffjax.core.errors import ConfigError
from diffjax.data import pipeline
from diffjax.encoders.clip import encoder
from diffjax.encoders.clip.captions import of_prompts
from tests.encoders.clip import small


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return small.write(tmp_path_factory.mktemp("clip") / "small")


@pytest.fixture
def options(place, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "cache"))
    clip_columns._opened.cache_clear()
    from configs import pieces

    made = config.load("configs/base64.py:tiny")
    with made.unlocked():
        made.vectors = pieces.vectors(f"clip:{place}", small.CONFIG.embed)
        made.model.kind = "prior"
    return made


@pytest.mark.slow
def test_each_example_has_the_vectors_of_its_picture_and_of_the_caption_that_was_drawn(options):
    records = reading.source_of(options)
    vector_of = clip_columns.of_captions(options, records)
    # the "embedding" of a caption says which it was
    embed = lambda caption: np.array([[len(caption), sum(caption.encode())]], np.float32)  # noqa: E731
    needed = columns.trained_on(options, embed, None, vector_of)
    batches = pipeline.train_iterator(records, needed, batch_size=8, seed=0, threads=0)
    batch = dict(next(batches))
    batches.close()
    clip = clip_columns.clip_of(options)
    assert set(batch) == {"image_vector", "text_vector", "text", "text_length"}
    np.testing.assert_allclose(np.linalg.norm(batch["image_vector"], axis=1), 1, atol=1e-5)
    captions = sorted({c for i in range(len(records)) for c in records[i]["captions"]})
    known = {tuple(embed(c)[0]): of_prompts(clip, [c])[0] for c in captions}
    for text, vector in zip(batch["text"][:, 0], batch["text_vector"], strict=True):
        np.testing.assert_allclose(known[tuple(text)], vector, atol=2e-3)


def test_vectors_are_computed_once_and_then_read(options, monkeypatch):
    records = reading.source_of(options)
    first = clip_columns.of_captions(options, records)
    again = lambda *_: pytest.fail("the CLIP was asked again")  # noqa: E731
    monkeypatch.setattr(encoder.Clip, "of_captions", again)
    monkeypatch.setattr(encoder.Clip, "of_pictures", again)
    second = clip_columns.of_captions(options, reading.source_of(options))
    caption = records[0]["captions"][0]
    np.testing.assert_array_equal(first(caption), second(caption))
    assert not second("").any()


def test_a_run_goes_on_with_its_own_clip_alone(options, place, tmp_path):
    marked = clip_columns.marked(options, tmp_path)
    assert marked.vectors.mark == encoder.load(place).fingerprint
    config.save(marked, tmp_path / "config.json")
    assert clip_columns.marked(options, tmp_path).vectors.mark == marked.vectors.mark
    with options.unlocked():
        options.vectors.mark = "d" * 64
    with pytest.raises(ConfigError, match=r"is another CLIP, .* name that one"):
        clip_columns.marked(options, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("clip", "emoji", 'want "clip:PLACE"'),
        ("clip", "clip:nowhere/at/all", "neither a folder"),
        ("width", 9, "has 8"),
    ],
)
def test_a_wrong_clip_is_refused_in_one_line(options, key, value, said):
    with options.unlocked():
        options.vectors[key] = value
    with pytest.raises(ConfigError, match=said) as error:
        clip_columns.clip_of(options)
    assert "\n" not in error.value.line()


def test_stages_of_different_clips_are_refused(options):
    other = options.copy_and_resolve_references()
    with options.unlocked(), other.unlocked():
        options.vectors.mark, other.vectors.mark = "a" * 64, "b" * 64
    vectors.check_same([(Path("prior"), options), (Path("decoder"), options)])
    with pytest.raises(ConfigError, match=r"has vectors of another CLIP, b+, than prior, a+:"):
        vectors.check_same([(Path("prior"), options), (Path("decoder"), other)])
