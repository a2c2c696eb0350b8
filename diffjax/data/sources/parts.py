"""Parts of files, read by place."""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffjax.data.broken import BrokenRecord
from diffjax.data.sources.files import shown

OPEN_FILES = 64


class OpenFiles:
    """Reads parts of files for several threads; at most OPEN_FILES of them are open at once."""

    def __init__(self, paths: Sequence[Path]):
        self._paths = tuple(paths)
        self._open: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["OpenFiles"], tuple[tuple[Path, ...]]]:
        """Another process opens them anew."""
        return OpenFiles, (self._paths,)

    def __del__(self) -> None:
        """Close what is open."""
        for descriptor in self._open.values():
            os.close(descriptor)

    def read(self, file: int, place: np.ndarray, limit: int) -> bytes:
        """The bytes at (start, size); BrokenRecord if more than `limit` or not all there."""
        start, size = map(int, place)
        called = shown(self._paths[file])
        if size > limit:
            raise BrokenRecord(f"a member of {size} bytes, more than {limit}")
        try:
            with self._lock:
                data = os.pread(self._descriptor(file), size, start)
        except OSError as error:
            raise BrokenRecord(f"{called}: {error.strerror}") from None
        if len(data) != size:
            raise BrokenRecord(f"{called} ends before its member does")
        return data

    def _descriptor(self, file: int) -> int:
        if file not in self._open:
            if len(self._open) >= OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[file] = os.open(self._paths[file], os.O_RDONLY)
        self._open.move_to_end(file)
        return self._open[file]
