"""The files of the page: of uploads, and of pictures that were drawn, only the newest are kept.

So whoever floods the page with files takes the place of older ones, and stops nobody.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MB = 1 << 20
# Of uploads and of drawn pictures each.
MOST_FILES, MOST_BYTES = 2000, 1024 * MB
# So much may be uploaded until the room is looked at again.
LOOK_AFTER_FILES, LOOK_AFTER_BYTES = 64, 64 * MB
DRAWN_DIGITS = 32  # drawing.keep's folders; the names of uploads have 64
FRESH_S = 60.0  # an empty folder of this age may get a file yet


class File(NamedTuple):
    """A file of the page: when it was written, its size, and whether it was drawn."""

    path: Path
    written: float
    num_bytes: int
    drawn: bool


class Room:
    """Keeps the number and the size of the files in a folder below limits."""

    def __init__(self, folder: Path, most_files: int = MOST_FILES, most_bytes: int = MOST_BYTES):
        self.folder, self._most_files, self._most_bytes = folder, most_files, most_bytes
        self._files = self._bytes = 0
        self._lock = threading.Lock()

    async def uploaded(self, num_bytes: int) -> None:
        """Count an upload; now and then look at the folder, in another thread."""
        self._files += 1
        self._bytes += num_bytes
        if self._files >= LOOK_AFTER_FILES or self._bytes >= LOOK_AFTER_BYTES:
            self._files = self._bytes = 0
            await asyncio.to_thread(self.make)

    def make(self) -> None:
        """Delete the oldest uploads and drawn pictures that are over the limits."""
        with self._lock:
            found = sorted(files(self.folder), key=lambda file: -file.written)
            for drawn in (False, True):
                count = size = 0
                for file in (one for one in found if one.drawn == drawn):
                    count, size = count + 1, size + file.num_bytes
                    if count > self._most_files or size > self._most_bytes:
                        delete(file.path)

    def delete_old(self, older_than: float) -> None:
        """Delete files that were written before this time in seconds, and empty folders."""
        with self._lock:
            for file in files(self.folder):
                if file.written < older_than:
                    delete(file.path)
            for folder in folders(self.folder):
                with contextlib.suppress(OSError):  # there is a file in it
                    if folder.stat().st_mtime < time.time() - FRESH_S:
                        folder.rmdir()


def folders(root: Path) -> list[Path]:
    """The folders in the page's own; each holds a file or few."""
    with os.scandir(root) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]


def files(root: Path) -> Iterator[File]:
    """The files of the page; those that are deleted meanwhile are left out."""
    places = [root, *folders(root)]
    for place in places:
        with contextlib.suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_file(follow_symlinks=False):
                        about = entry.stat(follow_symlinks=False)
                        drawn = len(place.name) == DRAWN_DIGITS
                        yield File(Path(entry.path), about.st_mtime, about.st_size, drawn)


def delete(path: Path) -> None:
    """Delete a file, and its folder if that is empty then."""
    with contextlib.suppress(OSError):
        path.unlink()
        path.parent.rmdir()
