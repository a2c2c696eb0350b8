"""Files, and parts of files by place, read with few calls of the system."""

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffjax.data.broken import BrokenRecord
from diffjax.data.sources.files import shown

OPEN_FILES = 64


def read_file(path: str, limit: int) -> bytes:
    """All bytes of a file; BrokenRecord if there are more than `limit`, or it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe is refused, not waited for
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                kind = "a folder" if stat.S_ISDIR(about.st_mode) else "no regular file"
                raise BrokenRecord(f"{kind}, not a picture")
            if about.st_size > limit:
                raise BrokenRecord(f"{about.st_size} bytes, more than {limit}")
            return _whole(descriptor, about.st_size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BrokenRecord(f"{error.strerror or error}") from None


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
        start, size = place.tolist()
        if size > limit:
            raise BrokenRecord(f"a member of {size} bytes, more than {limit}")
        try:
            with self._lock:
                data = os.pread(self._descriptor(file), size, start)
        except OSError as error:
            raise BrokenRecord(f"{shown(self._paths[file])}: {error.strerror}") from None
        if len(data) != size:
            raise BrokenRecord(f"{shown(self._paths[file])} ends before its member does")
        return data

    def _descriptor(self, file: int) -> int:
        if file not in self._open:
            if len(self._open) >= OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[file] = os.open(self._paths[file], os.O_RDONLY)
        self._open.move_to_end(file)
        return self._open[file]


def _whole(descriptor: int, size: int) -> bytes:
    """The first `size` bytes, or as many as there are; one call reads all of most files."""
    data = os.read(descriptor, size)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data
