"""The records of a prepared data set as bytes, of whichever file format it has."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils.shard_utils import FileInstruction

from diffjax.data.sources.tfds.array_record import ArrayRecords
from diffjax.data.sources.tfds.tfrecord import TFRecords, places_of


@runtime_checkable
class RawRecords(Protocol):
    """Random access to records as bytes, which are read when they are needed."""

    def __len__(self) -> int:
        """The number of records."""
        ...

    def __getitem__(self, index: int, /) -> bytes:
        """The bytes of a record."""
        ...


def raw_records(builder: tfds.core.DatasetBuilder, split: str) -> RawRecords:
    """The records of a split or of a slice of one, as bytes.

    Raises:
      ValueError: no such slice; or files of another format than ArrayRecord and TFRecord.
    """
    formats = tfds.core.FileFormat
    if builder.info.file_format not in (formats.ARRAY_RECORD, formats.TFRECORD):
        known = builder.info.file_format and builder.info.file_format.value
        raise ValueError(f"is prepared as {known}: prepare it with file_format='array_record'")
    parts = builder.info.splits[split].file_instructions
    paths = [Path(part.filename) for part in parts]
    if not paths:
        raise ValueError("holds no record")
    if builder.info.file_format == formats.ARRAY_RECORD:
        return ArrayRecords(paths, [range(part.examples_in_shard)[_taken(part)] for part in parts])
    places = [places_of(path)[_taken(part)] for path, part in zip(paths, parts, strict=True)]
    return TFRecords(paths, places)


def _taken(part: FileInstruction) -> slice:
    """Which records of a file; a negative number of them is all that are left."""
    return slice(part.skip, part.skip + part.take if part.take >= 0 else None)
