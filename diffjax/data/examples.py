"""Makes an example from a record, or from the next record if its picture is broken."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from diffjax.core.errors import BadData
from diffjax.data.broken import BrokenRecord, Skipped, skipped_of, too_many
from diffjax.data.readers import Columns, Reader
from diffjax.data.record import BadRecord, Batch, Record, RecordSource, name_at


class Example(NamedTuple):
    """One row of a batch, and the records that were skipped to make it."""

    columns: Columns
    skipped: tuple[Skipped, ...]


class Part(NamedTuple):
    """The rows of a batch that a process makes, and the records that were skipped for them."""

    columns: Batch
    skipped: tuple[Skipped, ...]


def no_chance() -> None:
    """Nothing is random."""


def fetch(source: RecordSource, index: int) -> Record | BadRecord:
    """The record at `index`, or what is wrong with it."""
    try:
        return source[index]
    except BadRecord as error:
        return error


def example_of(
    index: int,
    first: Record | BadRecord,
    begun: Callable[[], np.random.Generator | None],
    *,
    source: RecordSource,
    readers: Sequence[Reader],
    limit: int,
) -> Example:
    """The columns of the record at `index`, or of the first one after it with a good picture.

    first: `fetch` of `index`. begun: gives the generator of this example from its beginning, or
    None; each record that is tried gets it so. The result depends only on the records and on it.

    Raises:
      BadData: more than `limit` records in a row are broken, or one is wrong in another way.
    """
    skipped: list[Skipped] = []
    while True:
        at = (index + len(skipped)) % len(source)
        record = fetch(source, at) if skipped else first
        name: object = ""
        try:
            if isinstance(record, BadRecord):
                raise record
            name = record.get("name", "")
            rng, columns = begun(), Columns()
            for read in readers:
                columns |= read(record, rng)
            return Example(columns, tuple(skipped))
        except BrokenRecord as error:
            skipped.append(skipped_of(at, name or name_at(source, at), error))
            if len(skipped) > min(limit, len(source) - 1):
                raise too_many(skipped[-1], len(skipped) - 1, limit, len(source)) from None
        except BadRecord as error:
            raise BadData(str(skipped_of(at, name, error))) from None


def collate(examples: Sequence[Example]) -> Part:
    """Stacks examples, which have the same columns, along a new leading axis."""
    names = examples[0].columns
    return Part(
        {name: np.stack([example.columns[name] for example in examples]) for name in names},
        tuple(record for example in examples for record in example.skipped),
    )
