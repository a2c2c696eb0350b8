"""Iterates over the captions of a data source or of files (caption_files.py), without pictures."""

import dataclasses
from collections.abc import Callable, Iterator

from diffjax.data.broken import BrokenRecord
from diffjax.data.record import RecordSource, captions_at, clean


@dataclasses.dataclass
class Captions:
    """An iterable of cleaned captions, without blank ones, that can estimate their number.

    records: the number of lines, rows or examples, each of which may hold several captions.
    """

    records: int
    open: Callable[[], Iterator[tuple[str, ...]]]
    read_records: int = 0
    read_captions: int = 0

    def __iter__(self) -> Iterator[str]:
        """Starts at the first caption; a ValueError names file and line of a mistake."""
        self.read_records = self.read_captions = 0
        for texts in self.open():
            self.read_records += 1
            for text in map(clean, texts):
                if text:
                    self.read_captions += 1
                    yield text

    def estimate(self) -> int:
        """The estimated number of all captions, from those that have been read."""
        if not self.read_records:
            return self.records
        return round(self.read_captions * self.records / self.read_records)


def from_source(source: RecordSource) -> Captions:
    """The captions of all records, as training reads them; pictures are not read.

    Raises:
      BadRecord: (while iterating) the captions of a record are not texts; names its index.
    """
    return Captions(
        len(source), lambda: (usable_captions_at(source, index) for index in range(len(source)))
    )


def usable_captions_at(source: RecordSource, index: int) -> tuple[str, ...]:
    """`captions_at`, but () for a broken record: training leaves it out and counts it."""
    try:
        return captions_at(source, index)
    except BrokenRecord:
        return ()


def from_data_set(
    name: str, split: str, caption_key: str = "captions", data_dir: str | None = None
) -> Captions:
    """The captions of a split that `open_source` opens; its ValueErrors are passed on."""
    from diffjax.data.sources.open import Wanted, open_source

    # A prepared data set need not have pictures.
    wanted = Wanted(split=split, image_key="", caption_key=caption_key, data_dir=data_dir)
    return from_source(open_source(name, wanted))
