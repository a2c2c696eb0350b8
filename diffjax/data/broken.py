"""Records that cannot be read: named, counted, listed in a file, and skipped up to a limit."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from absl import logging

from diffjax.core.errors import BadData
from diffjax.core.files import parse_json_object, set_aside, side_output
from diffjax.data.record import BadRecord

SAID = 20  # so many are said one by one in the log; the file has all


class BrokenRecord(BadRecord):
    """A record that is broken by itself, as a damaged picture is; the others may be whole."""


class Skipped(NamedTuple):
    """The number of a record that was left out, its name ("" if it has none), and why."""

    record: int
    name: str
    reason: str

    def __str__(self) -> str:
        """As messages have it."""
        called = f" ({self.name})" if self.name else ""
        return f"record {self.record}{called}: {self.reason}"


def skipped_of(index: int, name: object, error: Exception) -> Skipped:
    """The record at `index`, left out because of an error."""
    return Skipped(index, str(name or ""), " ".join(str(error).split()))


@dataclass
class Broken:
    """The broken records that a run has met, each counted once.

    records: how many there are in all. share: up to which share of them may be broken, rounded up
    to whole records; 0 allows none. listed_in: a file with a line of JSON for each, which is read
    again when the run goes on; None for none.
    """

    records: int
    share: float
    listed_in: Path | None = None
    seen: dict[int, Skipped] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Know again what was met before."""
        if self.listed_in is not None and self.listed_in.exists():
            self.seen |= _listed(self.listed_in)

    @property
    def limit(self) -> int:
        """The number of records that may be broken."""
        return math.ceil(self.share * self.records - 1e-6)  # so that 0.1 of 30 is 3 in floats

    def add(self, skipped: Skipped) -> None:
        """Count a record; when it is met first, list it and say so in the log.

        Raises:
          BadData: one more than the limit; the message is one line that names the record.
        """
        if skipped.record in self.seen:
            return
        others = len(self.seen)
        if others >= self.limit:
            raise too_many(skipped, others, self.limit, self.records)
        self.seen[skipped.record] = skipped
        if self.listed_in is not None:
            with side_output(self.listed_in), open(self.listed_in, "a") as stream:
                stream.write(json.dumps(skipped._asdict()) + "\n")
        if others < SAID:
            logging.warning(
                "data: %s; skipped, the next record stands in: %d of %d records are broken so "
                "far, %d are allowed", skipped, len(self.seen), self.records, self.limit,
            )  # fmt: skip

    def summary(self) -> str:
        """One line for the end of a run; "" if no record was left out."""
        if not self.seen:
            return ""
        where = f", listed in {self.listed_in}" if self.listed_in is not None else ""
        return f"data: {len(self.seen)} of {self.records} records were left out{where}"


def too_many(skipped: Skipped, others: int, limit: int, records: int) -> BadData:
    """What to say when a record is broken that is one too many."""
    before = f", after {others} others," if others else ""
    return BadData(
        f"{skipped}; this{before} is more than data.max_bad_fraction allows, {limit} of {records} "
        "records; mend the data or raise it"
    )


def _listed(path: Path) -> dict[int, Skipped]:
    try:
        lines = [parse_json_object(line) for line in path.read_bytes().splitlines()]
        found = [Skipped(int(x["record"]), str(x["name"]), str(x["reason"])) for x in lines]  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError) as error:
        set_aside(path, f"damaged ({error})")
        return {}
    return {skipped.record: skipped for skipped in found}
