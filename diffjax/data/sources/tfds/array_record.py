"""The records of ArrayRecord files by index, each read by itself in the calling thread."""

import bisect
import itertools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader

READING = "readahead_buffer_size:0,max_parallelism:0"
BUFFER_BYTES = 1 << 15
OPEN_FILES = 256


class ArrayRecords:
    """The records of the files `paths`, of each those of one of `ranges`, one after the other.

    Several threads may read; at most OPEN_FILES files are open at once. It pickles.
    """

    def __init__(self, paths: Sequence[Path], ranges: Sequence[range]):
        self._paths, self._ranges = tuple(paths), tuple(ranges)
        self._ends = list(itertools.accumulate(map(len, ranges)))
        self._open: OrderedDict[int, ArrayRecordReader] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["ArrayRecords"], tuple[tuple[Path, ...], tuple[range, ...]]]:
        """Another process opens the files anew."""
        return ArrayRecords, (self._paths, self._ranges)

    def __len__(self) -> int:
        """How many records there are."""
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int, /) -> bytes:
        """The bytes of a record; RuntimeError, with the name of the file, if it is damaged."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} records")
        file = bisect.bisect_right(self._ends, index)
        place = self._ranges[file][index - (self._ends[file - 1] if file else 0)]
        try:
            reader = self._reader(file)
            if place >= reader.num_records():  # a file whose end is damaged opens as an empty one
                raise RuntimeError(f"it ends before record {place}")
            # A range, because reading a list of places takes time for every record of the file.
            return reader.read(place, place + 1)[0]
        except (RuntimeError, IndexError) as error:
            raise RuntimeError(f"{self._paths[file].name}: {error}") from None

    def _reader(self, file: int) -> ArrayRecordReader:
        with self._lock:
            if file not in self._open:
                self._open[file] = ArrayRecordReader(
                    str(self._paths[file]), READING, file_reader_buffer_size=BUFFER_BYTES
                )
                if len(self._open) > OPEN_FILES:
                    self._open.popitem(last=False)  # a thread that is reading it keeps it open
            self._open.move_to_end(file)
            return self._open[file]
