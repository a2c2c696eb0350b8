"""Which fields of a TFDS data set can be captions, and what they say."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from diffjax.data.record import BadRecord
from diffjax.data.sources import fake
from diffjax.data.sources.tfds import open_source

NAMES = ["red_dog", "cat"]


class Fields(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Every shape in which captions, and other things, come."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None

    def _info(self):
        f = tfds.features
        features = {
            "image": f.Image(shape=(8, 8, 3), encoding_format="png"),
            "mask": f.Image(shape=(8, 8, 3), encoding_format="png"),
            "captions": f.Sequence({"id": np.int64, "text": f.Text()}),  # as coco_captions
            "objects": f.Sequence({"label": f.ClassLabel(names=NAMES)}),
            "tags": f.Sequence(f.ClassLabel(names=NAMES)),
            "number": f.ClassLabel(num_classes=5),
            "texts": f.Sequence(f.Text()),
            "deep": {"en": f.Text(), "count": np.int32},
            "latin": f.Text(),
            "count": np.int64,
            "label": f.ClassLabel(names=NAMES),
        }
        return tfds.core.DatasetInfo(builder=self, features=f.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        picture = fake.Shapes(1, 8)[0]["image"]
        for i in range(2):
            yield (
                i,
                {
                    "image": picture,
                    "mask": picture,
                    "captions": [{"id": 7, "text": f" {n} "} for n in range(2 * i)],
                    "objects": [{"label": 0}, {"label": 1}],
                    "tags": [1, 0],
                    "number": 4,
                    "texts": ["a", "b"],
                    "deep": {"en": "deep", "count": 1},
                    "latin": b"caf\xe9",
                    "count": 3,
                    "label": i - 1,
                },
            )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    builder = Fields(data_dir=str(tmp_path_factory.mktemp("fields")), file_format="array_record")
    builder.download_and_prepare()
    return str(builder.data_path)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("captions/text", {(), ("0", "1")}),
        ("texts", {("a", "b")}),
        ("deep/en", {("deep",)}),
        ("label", {(), ("red dog",)}),  # -1: its class is not told
        ("tags", {("cat", "red dog")}),
        ("objects/label", {("red dog", "cat")}),
        ("number", {("4",)}),
        ("", {()}),
    ],
)
def test_texts_and_the_names_of_classes_are_captions(folder, key, expected):
    source = open_source(folder, "train", caption_key=key)
    strip = lambda captions: tuple(caption.strip() for caption in captions)  # noqa: E731
    assert {strip(source.captions(i)) for i in range(2)} == expected
    assert {strip(source[i]["captions"]) for i in range(2)} == expected


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("captions", "holds fields, not captions, at 'captions'"),
        ("deep", "holds fields, not captions, at 'deep'"),
        ("captions/id", "holds no text at 'captions/id'"),
        ("captions/txt", "has no field 'captions/txt'"),
        ("captions/text/en", "has no field 'captions/text/en'"),
        ("count", "holds no text at 'count'"),
        ("image", "holds no text at 'image'"),
        ("caption", "has no field 'caption'"),
    ],
)
def test_any_other_key_is_refused_in_a_line_with_the_keys_there_are(folder, key, problem):
    with pytest.raises(
        ValueError, match=r"captions can be \['captions/text', 'deep/en',"
    ) as caught:
        open_source(folder, "train", caption_key=key)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_caption_that_is_not_utf_8_is_a_line_that_shows_it(folder):
    source = open_source(folder, "train", caption_key="latin")
    with pytest.raises(BadRecord, match=r"caption b'caf\\xe9' is not UTF-8 .* at byte 3"):
        source[0]


def test_the_class_stands_in_the_record_and_other_fields_are_not_read(folder):
    source = open_source(folder, "train", caption_key="texts")
    assert {int(source[i]["label"]) for i in range(2)} == {-1, 0}
    assert set(source[0]) == {"image", "captions", "name", "label"}


def test_pictures_can_be_left_out(folder):
    assert "image" not in open_source(folder, "train", image_key="", caption_key="texts")[0]
