"""Records that cannot be read: named, counted, and skipped up to a limit."""

import math
from dataclasses import dataclass, field

from absl import logging

from diffjax.core.errors import BadData
from diffjax.data.record import BadRecord


class BrokenRecord(BadRecord):
    """A record that is broken by itself, as a damaged picture is; the others may be whole."""


@dataclass
class Broken:
    """The broken records that a process has found since its start, each counted once.

    records: the number of all records. share: the share of them that may be broken, rounded up to
    whole records; 0 allows none.
    """

    records: int
    share: float
    seen: set[int] = field(default_factory=set)

    @property
    def limit(self) -> int:
        """The number of records that may be broken."""
        return math.ceil(self.share * self.records - 1e-6)  # so that 0.1 of 30 is 3 in floats

    def add(self, index: int, reason: str) -> None:
        """Counts a record, and logs a line when it is found for the first time.

        Raises:
          BadData: there are more than the limit; the message is one line that names the record.
        """
        if index in self.seen:
            return
        if len(self.seen) >= self.limit:
            raise too_many(reason, len(self.seen), self.limit, self.records)
        self.seen.add(index)
        logging.warning(
            "data: %s; skipped, the next record stands in: %d of %d records are broken so far, "
            "%d are allowed", reason, len(self.seen), self.records, self.limit,
        )  # fmt: skip


def reason_of(index: int, name: object, error: Exception) -> str:
    """One line that names the record and says what is wrong with it."""
    called = f" ({name})" if name else ""
    return f"record {index}{called}: {' '.join(str(error).split())}"


def too_many(reason: str, others: int, limit: int, records: int) -> BadData:
    """The error for the first broken record beyond the limit."""
    before = f", after {others} others," if others else ""
    return BadData(
        f"{reason}; this{before} is more than data.max_broken allows, {limit} of {records} "
        "records; mend the data or raise it"
    )
