"""Random access to the records of any TFDS data set that is prepared as ArrayRecord."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from diffjax.data.emoji.builder import SIZES_PX, prepare, resolve_data_dir
from diffjax.data.record import Record
from diffjax.data.sources.prepared import builder_of


def open_source(
    name: str,
    split: str,
    data_dir: str | Path | None = None,
    *,
    names: Sequence[str] = (),
    image_key: str = "image",
    caption_key: str = "captions",
    name_key: str = "name",
) -> "Source":
    """The records of `split` of a data set, images left encoded.

    `name` is "emoji/64" (256, 1024; prepared on demand), a data set prepared under `data_dir`, or
    the folder of a prepared builder. `split` may be a slice, "train[:100]". `caption_key` names a
    text, a sequence of texts or a class label, "captions/text" if it is nested. `names` keeps only
    records so named. Raises ValueError, saying what is allowed, for anything that is not there.
    """
    builder = _builder(name, data_dir)
    _check_split(builder, split)
    features = builder.info.features
    for key in (image_key, caption_key.split("/")[0]):
        if key not in features:
            raise ValueError(f"{name} has no field {key!r}, only {sorted(features)}")
    has_names = name_key in features
    if names and not has_names:
        raise ValueError(f"{name} has no field {name_key!r} to choose names by")
    records = builder.as_data_source(split=split, decoders={image_key: tfds.decode.SkipDecoding()})
    source = Source(
        records,
        image_key=image_key,
        caption_key=caption_key,
        name_key=name_key if has_names else None,
        labels=getattr(features[caption_key.split("/")[0]], "names", None),
    )
    return source.only(names) if names else source


class Source:
    """Records by index: `image` bytes, `captions` and `name`. Grain's workers may pickle it."""

    def __init__(
        self,
        records: Any,
        *,
        image_key: str,
        caption_key: str,
        name_key: str | None,
        labels: Sequence[str] | None = None,
        indices: Sequence[int] | None = None,
    ):
        self._records = records
        self._image_key, self._caption_key, self._name_key = image_key, caption_key, name_key
        self._labels = list(labels) if labels else None
        self._indices = range(len(records)) if indices is None else indices

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        """The record at `index`; IndexError beyond the end."""
        raw = self._records[self._indices[index]]
        return Record(
            image=raw[self._image_key], captions=self._captions(raw), name=self._name(raw)
        )

    def __repr__(self) -> str:
        """What Grain shows of it."""
        return f"Source({len(self)} records)"

    def names(self) -> list[str]:
        """The name of every record, in order, read without decoding images."""
        return [self._name(self._records[index]) for index in self._indices]

    def only(self, names: Sequence[str]) -> "Source":
        """The records of these names; ValueError for a name that no record has."""
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
            image_key=self._image_key,
            caption_key=self._caption_key,
            name_key=self._name_key,
            labels=self._labels,
            indices=indices,
        )

    def _name(self, raw: dict) -> str:
        return _text(raw[self._name_key]) if self._name_key else ""

    def _captions(self, raw: dict) -> tuple[str, ...]:
        value: Any = raw
        for key in self._caption_key.split("/"):
            # A sequence of dicts comes as a list of them or as a dict of lists.
            value = [item[key] for item in value] if isinstance(value, list) else value[key]
        if self._labels is not None:
            return (self._labels[int(value)].replace("_", " "),)
        return (_text(value),) if isinstance(value, bytes | str) else tuple(map(_text, value))


def _builder(name: str, data_dir: str | Path | None) -> tfds.core.DatasetBuilder:
    folder = Path(name).expanduser()
    if (folder / "dataset_info.json").exists():
        builder = builder_of(folder)
    elif name.split("/")[0] == "emoji":
        builder = builder_of(prepare(_emoji_size_px(name), data_dir))
    else:
        data_dir = resolve_data_dir(data_dir)
        try:
            builder = read_only_builder.builder_from_files(name, data_dir=data_dir)
        except tfds.core.DatasetNotFoundError as error:
            raise ValueError(
                f"no data set {name!r}: known are {_known(data_dir)} in {data_dir}, "
                "or the folder of a prepared builder"
            ) from error
    file_format = builder.info.file_format
    if file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"{name} is prepared as {file_format and file_format.value}: "
            "prepare it with file_format='array_record'"
        )
    return builder


def _check_split(builder: tfds.core.DatasetBuilder, split: str) -> None:
    whole, allowed = split.split("[")[0], sorted(builder.info.splits)
    if whole not in allowed:
        raise ValueError(f"{builder.info.full_name} has no split {split!r}, only {allowed}")


def _emoji_size_px(name: str) -> int:
    allowed = {f"emoji/{size_px}": size_px for size_px in SIZES_PX}
    if name not in allowed:
        raise ValueError(f"no data set {name!r}: the sizes of emoji are {sorted(allowed)}")
    return allowed[name]


def _known(data_dir: str) -> list[str]:
    """Data sets and configs prepared in `data_dir`, and those that are prepared on demand."""
    root = Path(data_dir)
    infos = [*root.glob("*/*/dataset_info.json"), *root.glob("*/*/*/dataset_info.json")]
    prepared = {str(path.parent.parent.relative_to(root)) for path in infos}
    return sorted(prepared | {f"emoji/{size_px}" for size_px in SIZES_PX})


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
