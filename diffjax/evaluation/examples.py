"""The examples on which a task is evaluated: part of a split, read once and kept in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diffjax.data import pipeline, readers
from diffjax.data.record import Record, RecordSource, captions_at


@dataclass(frozen=True)
class Examples:
    """Examples in the host's memory. columns: as the task reads them, with a row per example.

    names, captions: of the records; "" if a record has none.
    """

    columns: Mapping[str, np.ndarray]
    names: tuple[str, ...]
    captions: tuple[str, ...]

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.names)


class Spread:
    """`count` records spread evenly over a source, or all if it has fewer.

    Each record keeps its first caption only, the one that is read without random draws.
    """

    def __init__(self, source: RecordSource, count: int):
        self._source, self._count = source, min(count, len(source))

    def __len__(self) -> int:
        """The number of records."""
        return self._count

    def __getitem__(self, index: int) -> Record:
        """The record at `index`."""
        return self._source[self._place(index)]

    def captions(self, index: int) -> tuple[str, ...]:
        """The first caption of the record at `index`, if it has any."""
        return captions_at(self._source, self._place(index))[:1]

    def _place(self, index: int) -> int:
        if not 0 <= index < self._count:
            raise IndexError(f"index {index} of {self._count} records")
        return index * len(self._source) // self._count


def read(
    records: RecordSource, needed: Sequence[readers.Reader], max_bad_fraction: float = 0.0
) -> Examples:
    """Reads all records without random draws.

    Raises:
      BadData: more than the share `max_bad_fraction` is broken, or a record cannot be read.
    """
    named = [*needed, readers.caption, _name]
    (batch,) = pipeline.eval_batches(
        records, named, batch_size=len(records), max_bad_fraction=max_bad_fraction
    )
    columns = dict(batch)
    captions, names = (tuple(map(str, columns.pop(key))) for key in ("caption", "name"))
    return Examples(columns, names, captions)


def _name(record: Record, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
    return {"name": np.asarray(str(record.get("name", "")))}
