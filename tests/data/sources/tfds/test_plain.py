"""Fields taken straight from the protocol buffer agree with tensorflow-datasets."""

import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds

from diffjax.data.sources import fake
from diffjax.data.sources.tfds.plain import Fields

ALL = {
    "image": tfds.features.Image(),
    "captions": tfds.features.Sequence(tfds.features.Text()),
    "name": tfds.features.Text(),
    "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
}
PICTURE = fake.Shapes(1, 8)[0]["image"]


def written(features, **values):
    whole = tfds.features.FeaturesDict(features)
    serializer = tfds.core.example_serializer.ExampleSerializer(whole.get_serialized_info())
    return serializer.serialize_example(whole.encode_example(values))


def by_tfds(features, record, undecoded=""):
    skip = {undecoded: tfds.decode.SkipDecoding()} if undecoded else None
    whole = tfds.features.FeaturesDict(features)
    return whole.deserialize_example_np(record, decoders=skip)


@pytest.mark.parametrize("captions", [[], ["one"], ["a cat", "two  words", "n\u00e4chtlich"]])
@pytest.mark.parametrize("keys", [("image", "captions", "name", "label"), ("captions",), ("name",)])
def test_the_fields_are_those_of_tensorflow_datasets(captions, keys):
    record = written(ALL, image=PICTURE, captions=captions, name="", label=2)
    wanted, undecoded = {key: ALL[key] for key in keys}, "image" if "image" in keys else ""
    fields = pickle.loads(pickle.dumps(Fields(tfds.features.FeaturesDict(wanted), undecoded)))
    found, expected = fields.read(record), by_tfds(wanted, record, undecoded)
    assert list(found.get("captions", ())) == list(expected.pop("captions", ()))
    assert {key: found[key] for key in expected} == expected


def test_other_kinds_of_fields_are_left_to_tensorflow_datasets():
    """A decoded picture, and a vector."""
    features = {**ALL, "vector": tfds.features.Tensor(shape=(3,), dtype=np.float32)}
    record = written(
        features, image=PICTURE, captions=[], name="n", label=0, vector=np.ones(3, np.float32)
    )
    found = Fields(tfds.features.FeaturesDict(features)).read(record)
    assert found["image"].shape == (8, 8, 3)
    np.testing.assert_array_equal(found["vector"], np.ones(3, np.float32))


def test_a_record_that_lacks_a_field_is_left_to_tensorflow_datasets():
    name = {"name": ALL["name"]}
    record = written({"label": ALL["label"]}, label=1)
    assert Fields(tfds.features.FeaturesDict(name)).read(record) == by_tfds(name, record)


def test_a_class_of_several_numbers_is_an_error():
    record = written({"label": tfds.features.Sequence(np.int64)}, label=[1, 2])
    with pytest.raises(ValueError, match="size 1"):
        Fields(tfds.features.FeaturesDict({"label": ALL["label"]})).read(record)
