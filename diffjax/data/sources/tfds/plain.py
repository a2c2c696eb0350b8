"""Reads the fields of a record: those of the plainest kinds straight from its protocol buffer.

tensorflow-datasets makes arrays of them first, which takes longer than to read the record.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

Take: TypeAlias = Callable[[tf_feature_pb2.Feature], object]


@dataclass(frozen=True)
class Fields:
    """Some fields of a record. undecoded: a picture that stays as it is, "" for none."""

    features: tfds.features.FeaturesDict
    undecoded: str = ""

    def read(self, record: bytes) -> dict[str, object]:
        """The fields in the bytes of a record; sequences of texts may be lists or arrays."""
        found = None if self._take is None else plain(record, self._take)
        if found is not None:
            return found
        skip = {self.undecoded: tfds.decode.SkipDecoding()} if self.undecoded else None
        return self.features.deserialize_example_np(record, decoders=skip)

    @functools.cached_property
    def _take(self) -> dict[str, Take] | None:
        """What takes each field; None if one of them is of no plain kind."""
        takers = {
            name: _taker(feature, name == self.undecoded) for name, feature in self.features.items()
        }
        known = {name: take for name, take in takers.items() if take is not None}
        return known if len(known) == len(takers) else None


def plain(record: bytes, take: Mapping[str, Take]) -> dict[str, object] | None:
    """The fields of a record; None if one is not there, so that tensorflow-datasets says why."""
    there = tf_example_pb2.Example.FromString(record).features.feature
    found: dict[str, object] = {}
    for name, one in take.items():
        value = one(there[name]) if name in there else None
        if value is None:
            return None
        found[name] = value
    return found


def _taker(feature: object, undecoded: bool) -> Take | None:
    """Of a class, a text, an undecoded picture, or a sequence of texts."""
    if isinstance(feature, tfds.features.ClassLabel):
        return _number
    if undecoded and isinstance(feature, tfds.features.Image):
        return _bytes
    if isinstance(feature, tfds.features.Text):
        return _bytes
    if isinstance(feature, tfds.features.Sequence):
        return _texts if isinstance(feature.feature, tfds.features.Text) else None
    return None


def _number(feature: tf_feature_pb2.Feature) -> int | None:
    values = feature.int64_list.value
    return int(values[0]) if len(values) == 1 else None


def _bytes(feature: tf_feature_pb2.Feature) -> bytes | None:
    values = feature.bytes_list.value
    return values[0] if len(values) == 1 else None


def _texts(feature: tf_feature_pb2.Feature) -> list[bytes] | None:
    return list(feature.bytes_list.value) if feature.HasField("bytes_list") else None
