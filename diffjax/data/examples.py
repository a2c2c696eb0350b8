"""Makes the examples of a batch from records, or from the next record where a picture is broken."""

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from diffjax.core.errors import BadData
from diffjax.data.broken import BrokenRecord, Skipped, skipped_of, too_many
from diffjax.data.chance import Chance
from diffjax.data.order import Order
from diffjax.data.readers import Columns, Reader
from diffjax.data.record import BadRecord, Batch, Record, RecordSource, name_at

FETCHED = 8  # records in a row: more would keep more encoded pictures in memory for no gain


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


@dataclass(frozen=True)
class Examples:
    """The examples of all processes by their number, from 0 on, practically endless."""

    source: RecordSource
    readers: tuple[Reader, ...]
    order: Order
    chance: Chance
    limit: int

    def of(self, numbers: Sequence[int]) -> list[Example]:
        """The examples of these numbers; only their own records, or those in their place, are read.

        A few records are fetched in a row: after each decoded picture, the code and the data that
        fetching needs are no longer in the processor's cache.
        """
        made: list[Example] = []
        for start in range(0, len(numbers), FETCHED):
            some = [(n, self.order(n)) for n in numbers[start : start + FETCHED]]
            fetched = [fetch(self.source, index) for _, index in some]
            made += [
                example_of(
                    index,
                    first,
                    functools.partial(self.chance.at, number),
                    source=self.source,
                    readers=self.readers,
                    limit=self.limit,
                )
                for (number, index), first in zip(some, fetched, strict=True)
            ]
        return made


@dataclass(frozen=True)
class Parts:
    """What a process makes of each batch: its `rows`, from example `start` on.

    It stands for the whole chain of Grain's transformations, whose accounts of every example took
    a tenth of the time of decoding a picture. Grain's worker processes pickle it.
    """

    examples: Examples
    start: int
    batch_size: int
    rows: tuple[int, ...]

    def __len__(self) -> int:
        """The number of batches, which is practically endless."""
        return (sys.maxsize - self.start) // self.batch_size

    def __getitem__(self, batch: int) -> Part:
        """The part of a batch."""
        first = self.start + batch * self.batch_size
        return collate(self.examples.of([first + row for row in self.rows]))
