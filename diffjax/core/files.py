"""Files that are whole or not there, and what is said when the disk takes no more."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from diffjax.core.errors import StorageError


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """What the disk refuses meanwhile is a StorageError of one line."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from None


def publish(temporary: Path, path: Path) -> None:
    """Out to the disk, then renamed, and the name out to the disk."""
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """The file with these bytes, in place of what was there; whole or not there.

    Raises:
      StorageError: the disk refuses; what was there stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storing(path):
        try:
            temporary.unlink(missing_ok=True)
            with open(temporary, "xb") as file:  # never through a link that lies there
                file.write(data)
            publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """The file's bytes, or the folder's names, are on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: Path) -> int:
    """What the file system of `path`, which need not exist yet, still takes of us."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
