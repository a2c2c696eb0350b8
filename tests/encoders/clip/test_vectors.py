"""The column of a CLIP's vectors: computed once, equal to the CLIP's, and what is refused."""

import dataclasses

import numpy as np
import pytest

from configs import pieces
from diffjax.build.inputs import columns, reading
from diffjax.build.options import config
from diffjax.core.errors import ConfigError
from diffjax.data import pipeline, transforms
from diffjax.data.record import fingerprint_of, image_of, stored_captions
from diffjax.data.sources.fake import Shapes
from diffjax.encoders.clip import encoder, vectors
from tests.encoders.clip import small

RECORDS = Shapes(70, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small.write(tmp_path_factory.mktemp("clips") / "small")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "cache"))


def unused():
    raise AssertionError("the network is not needed again")


def test_each_record_has_the_vector_of_its_picture_and_none_is_computed_twice(folder):
    clip = encoder.load(folder)
    found = vectors.with_vectors(RECORDS, "clip_image", clip)
    pictures = np.stack([transforms.decode(image_of(RECORDS[i])) for i in range(70)])
    want = clip.of_pictures(pictures)
    np.testing.assert_allclose([found[i]["clip_image"] for i in range(70)], want, atol=1e-6)
    assert found[3]["name"] == RECORDS[3]["name"]
    assert stored_captions(found, 5) == RECORDS.captions(5)
    assert fingerprint_of(found) == RECORDS.fingerprint()
    again = vectors.with_vectors(RECORDS, "v", dataclasses.replace(clip, load=unused))
    np.testing.assert_array_equal(again[69]["v"], found[69]["clip_image"])


class OneBroken(Shapes):
    """The same records, of which one has no readable picture."""

    def __getitem__(self, index):
        record = super().__getitem__(index)
        return {**record, "image": b"nothing"} if index == 2 else record


def test_a_broken_picture_has_zeros_and_the_others_their_own(folder):
    clip = encoder.load(folder)
    found = vectors.with_vectors(OneBroken(4, 16, seed=1), "v", clip)
    norms = [float(np.linalg.norm(found[i]["v"])) for i in range(4)]
    np.testing.assert_allclose(norms, [1, 1, 0, 1], atol=1e-5)


def options_of(folder, width=8, name="clip:"):
    options = config.load("configs/base64.py:tiny").copy_and_resolve_references().unlock()
    del options.text
    options.embedding = pieces.embedding("clip_image", width, f"{name}{folder}")
    return options


def test_a_stage_is_told_the_vectors_of_a_clip(folder):
    options = options_of(folder)
    records = reading.source_of(options)
    batches = pipeline.train_iterator(
        records, columns.readers_of(options, None), batch_size=4, seed=0, threads=0
    )
    batch = next(batches)
    assert batch["clip_image"].shape == (4, 8)
    made = encoder.load(folder).of_pictures(batch["image"])
    np.testing.assert_allclose(batch["clip_image"], made, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (dict(width=9), "embedding.width = 9: .* has 8"),
        (dict(name="t5:"), 'embedding.encoder = .*want "clip:PLACE"'),
        (dict(name="clip:/absent"), "embedding.encoder = .*neither a folder"),
    ],
)
def test_another_width_or_no_clip_is_refused(folder, given, said):
    with pytest.raises(ConfigError, match=said):
        reading.source_of(options_of(folder, **given))
