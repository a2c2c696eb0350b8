"""Records whose picture cannot be read: named, counted, and skipped up to a limit."""

import math
from dataclasses import dataclass, field

from absl import logging

from diffjax.core.errors import BadData
from diffjax.data.record import BadRecord


class BrokenPicture(BadRecord):
    """Bytes that are no whole picture, or of more pixels than are taken."""


@dataclass
class Broken:
    """The broken records that a process has met since its start, each counted once.

    records: how many there are in all. share: up to which share of them may be broken, rounded up
    to whole records; 0 allows none.
    """

    records: int
    share: float
    seen: set[int] = field(default_factory=set)

    @property
    def limit(self) -> int:
        """So many may be broken."""
        return math.ceil(self.share * self.records - 1e-6)  # 0.1 of 30 is 3, in floats too

    def add(self, index: int, reason: str) -> None:
        """Count a record, and say so in the log when it is met first.

        Raises:
          BadData: one more than the limit; the message is one line that names the record.
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
    """The record and what is wrong with it, on one line."""
    called = f" ({name})" if name else ""
    return f"record {index}{called}: {' '.join(str(error).split())}"


def too_many(reason: str, others: int, limit: int, records: int) -> BadData:
    """What to say when a record is broken that is one too many."""
    before = f", after {others} others," if others else ""
    return BadData(
        f"{reason}; this{before} is more than data.max_broken allows, {limit} of {records} "
        "records; mend the data or raise it"
    )
