"""Captions alone, one after the other: of a source of records, or of files (caption_files.py)."""

import dataclasses
from collections.abc import Callable, Iterator

from diffjax.data.record import RecordSource, captions_at, clean


@dataclasses.dataclass
class Captions:
    """An iterable of captions, cleaned, blank ones left out, that knows how far it has come.

    `records` counts the lines, rows or examples there are; one may hold several captions.
    """

    records: int
    open: Callable[[], Iterator[tuple[str, ...]]]
    read_records: int = 0
    read_captions: int = 0

    def __iter__(self) -> Iterator[str]:
        """From the start. Mistakes in the input are ValueErrors that name the file and line."""
        self.read_records = self.read_captions = 0
        for texts in self.open():
            self.read_records += 1
            for text in map(clean, texts):
                if text:
                    self.read_captions += 1
                    yield text

    def estimate(self) -> int:
        """How many captions there may be in all, by what has been read."""
        if not self.read_records:
            return self.records
        return round(self.read_captions * self.records / self.read_records)


def from_source(source: RecordSource) -> Captions:
    """The captions of all records, those that training may ask for; pictures are not read.

    A record whose captions cannot be read is a BadRecord that names its index.
    """
    return Captions(
        len(source), lambda: (captions_at(source, index) for index in range(len(source)))
    )


def from_data_set(
    name: str, split: str, caption_key: str = "captions", data_dir: str | None = None
) -> Captions:
    """The captions of a split that `tfds.open_source` opens; its ValueErrors are passed on."""
    from diffjax.data.sources import tfds

    # The data set need not have pictures.
    found = tfds.open_source(name, split, data_dir, image_key="", caption_key=caption_key)
    return from_source(found)
