"""Random access to the records of any data set that tensorflow-datasets has prepared."""

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.core import read_only_builder

from diffjax.data.broken import BrokenRecord
from diffjax.data.emoji.builder import SIZES_PX, Emoji, EmojiStyles, prepare, resolve_data_dir
from diffjax.data.record import BadRecord, NoSplit, Record
from diffjax.data.sources.tfds.fields import TextField, text_field
from diffjax.data.sources.tfds.plain import Fields
from diffjax.data.sources.tfds.prepared import builder_of
from diffjax.data.sources.tfds.raw import RawRecords, raw_records

# The data sets that are made if they do not exist.
MADE = {"emoji": Emoji, "emoji_styles": EmojiStyles}
Features: TypeAlias = Mapping[str, tfds.features.FeatureConnector]


def open_source(
    name: str,
    split: str,
    data_dir: str | Path | None = None,
    *,
    names: Sequence[str] = (),
    image_key: str = "image",
    caption_key: str = "captions",
    name_key: str = "name",
    label_key: str = "label",
    vector_key: str = "",
) -> "Source":
    """The records of `split` of a data set; pictures stay encoded.

    `name` is "emoji/64" or "emoji_styles/64" (256, 1024; made if they do not exist), a data set
    that was prepared in `data_dir`, or the folder of a prepared data set. `split` may be a slice
    such as "train[:100]".
    `caption_key` names a text, a class, or a sequence of either; it is "captions/text" if it is
    nested. "" for `image_key` or `caption_key` leaves out pictures or captions. Names and class
    labels are read if the data set has them under these keys, and so is the field `vector_key` if
    one is named. `names`: read only these records.

    Raises:
      ValueError: one of these does not exist; the message says what is allowed.
    """
    builder = _builder(name, data_dir)
    _check_split(builder, split)
    features = dict(builder.info.features.items())
    if vector_key and vector_key not in features:
        raise ValueError(f"{name} has no field {vector_key!r}, only {sorted(features)}")
    if image_key and image_key not in features:
        raise ValueError(f"{name} has no field {image_key!r}, only {sorted(features)}")
    captions = text_field(features, caption_key, name) if caption_key else None
    if name_key not in features:
        if names:
            raise ValueError(f"{name} has no field {name_key!r} to choose names by")
        name_key = ""
    if not isinstance(features.get(label_key), tfds.features.ClassLabel):
        label_key = ""
    try:
        records = raw_records(builder, split)
    except ValueError as error:
        raise NoSplit(f"{name} split {split!r}: {str(error).splitlines()[0]}") from None
    source = Source(
        records,
        features,
        image_key=image_key,
        captions=captions,
        name_key=name_key,
        label_key=label_key,
        vector_key=vector_key,
        described=(str(builder.data_path), split, caption_key, _files(builder)),
        identity=(builder.info.full_name, split, caption_key, _shards(builder)),
    )
    return source.only(names) if names else source


class Source:
    """Random access to records with the chosen fields. It pickles, for Grain's workers.

    records: each as the bytes of its protocol buffer. features: what those bytes hold. described:
    the data set, for `fingerprint`. identity: the data set, wherever it lies.
    """

    def __init__(
        self,
        records: RawRecords,
        features: Features,
        *,
        image_key: str,
        captions: TextField | None,
        name_key: str,
        label_key: str,
        vector_key: str = "",
        described: tuple[object, ...],
        identity: tuple[object, ...] = (),
        indices: Sequence[int] | None = None,
    ):
        self._records, self._features, self._described = records, features, described
        self._identity = identity
        self._image_key, self._captions = image_key, captions
        self._name_key, self._label_key, self._vector_key = name_key, label_key, vector_key
        self._indices = range(len(records)) if indices is None else indices
        caption_key = captions.path[0] if captions else ""
        # Other fields of a record, which may be pictures too, are not decoded.
        self._whole = _only(
            features, (image_key, caption_key, name_key, label_key, vector_key), image_key
        )
        self._texts = _only(features, (caption_key,))
        self._called = _only(features, (name_key,))

    def __len__(self) -> int:
        """The number of records."""
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        """The record at `index`.

        Raises:
          IndexError: there is no such record.
          BadRecord: a caption is not UTF-8.
          BrokenRecord: the file is damaged there; names the file and the remedy.
        """
        raw = self._read(self._whole, index)
        record: dict[str, object] = {"name": self._name(raw), "captions": self._texts_of(raw)}
        if self._image_key:
            record["image"] = raw[self._image_key]
        if self._label_key:
            record["label"] = raw[self._label_key]
        if self._vector_key:
            record[self._vector_key] = raw[self._vector_key]
        return record

    def __repr__(self) -> str:
        """As messages name it."""
        return f"Source({len(self)} records)"

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, or their numbers; () if the data set has none."""
        feature = self._features.get(self._label_key)
        return tuple(feature.names) if isinstance(feature, tfds.features.ClassLabel) else ()

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of the record at `index`, without decoding its picture."""
        return self._texts_of(self._read(self._texts, index)) if self._captions else ()

    def fingerprint(self) -> str:
        """A digest of the data set, its files, and the choice of records and captions.

        No record is read.
        """
        every = isinstance(self._indices, range)
        chosen = None if every else hashlib.sha256(json.dumps(list(self._indices)).encode())
        content = [len(self), chosen and chosen.hexdigest(), self._described]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def identity(self) -> str:
        """A digest of the data set's name, version and shards, without its place on the disk."""
        chosen = None if isinstance(self._indices, range) else list(self._indices)
        content = [len(self), chosen, self._identity]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def names(self) -> list[str]:
        """The name of every record, in order; no picture is read."""
        return [self._name(self._read(self._called, index)) for index in range(len(self))]

    def only(self, names: Sequence[str]) -> "Source":
        """The records of these names.

        Raises:
          ValueError: no record has one of the names.
        """
        present = self.names()
        known = set(present)
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
                raise ValueError(
                    f"name {name!r} is not in this split; "
                    + (f"close to it: {near}" if near else f"it has {len(known)} others")
                )
        wanted = set(names)
        indices = [
            index for index, name in zip(self._indices, present, strict=True) if name in wanted
        ]
        return Source(
            self._records,
            self._features,
            image_key=self._image_key,
            captions=self._captions,
            name_key=self._name_key,
            label_key=self._label_key,
            vector_key=self._vector_key,
            described=self._described,
            identity=self._identity,
            indices=indices,
        )

    def _read(self, wanted: Fields, index: int) -> dict[str, object]:
        try:
            return wanted.read(self._records[self._indices[index]])
        except BadRecord:
            raise
        # ArrayRecord raises a RuntimeError for damaged bytes, and the reader of fields many others
        except (RuntimeError, OSError, ValueError, LookupError, TypeError, DecodeError) as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BrokenRecord(
                f"{self._described[0]} is damaged at record {self._indices[index]} "
                f"({why}); delete the data set and prepare it anew"
            ) from None

    def _name(self, raw: dict[str, object]) -> str:
        name = raw.get(self._name_key, "")
        return name.decode(errors="replace") if isinstance(name, bytes) else str(name)

    def _texts_of(self, raw: dict[str, object]) -> tuple[str, ...]:
        return self._captions.read(raw) if self._captions else ()


def _only(features: Features, keys: Sequence[str], undecoded: str = "") -> Fields:
    only = {key: features[key] for key in keys if key}
    return Fields(tfds.features.FeaturesDict(only), undecoded)


def _files(builder: tfds.core.DatasetBuilder) -> list[tuple[str, int, float]]:
    """Name, size and time of each file of the data set, in order.

    Sizes are not enough, because ArrayRecord pads its files to whole blocks.
    """
    shards = (path for path in builder.data_path.iterdir() if "record" in path.name)
    return sorted((path.name, (stat := path.stat()).length, float(stat.mtime)) for path in shards)


def _shards(builder: tfds.core.DatasetBuilder) -> dict[str, list[int]]:
    """How many records each shard of each split has."""
    return {name: list(split.shard_lengths) for name, split in builder.info.splits.items()}


def _builder(name: str, data_dir: str | Path | None) -> tfds.core.DatasetBuilder:
    folder = Path(name).expanduser()
    if (folder / "dataset_info.json").exists():
        builder = builder_of(folder)
    elif made := MADE.get(name.split("/")[0]):
        builder = builder_of(prepare(_size_px(name), data_dir, builder=made))
    else:
        data_dir = resolve_data_dir(data_dir)
        try:
            builder = read_only_builder.builder_from_files(name, data_dir=data_dir)
        except (tfds.core.DatasetNotFoundError, ValueError) as error:
            if folder.is_dir() and name:
                raise ValueError(
                    f"{name} is a folder without dataset_info.json: folder:{name} trains on the "
                    "pictures in it; or name the folder of one version of a prepared data set"
                ) from None
            raise ValueError(
                f"no data set {name!r}: known are {_known(data_dir)} in {data_dir}, "
                "or the folder of a prepared builder"
            ) from error
    return builder


def _check_split(builder: tfds.core.DatasetBuilder, split: str) -> None:
    whole, allowed = split.split("[")[0], sorted(builder.info.splits)
    if whole not in allowed:
        raise NoSplit(f"{builder.info.full_name} has no split {split!r}, only {allowed}")


def _size_px(name: str) -> int:
    kind = name.split("/")[0]
    allowed = {f"{kind}/{size_px}": size_px for size_px in SIZES_PX}
    if name not in allowed:
        raise ValueError(f"no data set {name!r}: the sizes of {kind} are {sorted(allowed)}")
    return allowed[name]


def _known(data_dir: str) -> list[str]:
    """The data sets in `data_dir`, and those that are made if they do not exist."""
    root = Path(data_dir)
    infos = [*root.glob("*/*/dataset_info.json"), *root.glob("*/*/*/dataset_info.json")]
    prepared = {str(path.parent.parent.relative_to(root)) for path in infos}
    return sorted(prepared | {f"emoji/{size_px}" for size_px in SIZES_PX})
