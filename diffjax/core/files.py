"""Writes files completely or not at all, reads JSON, and reports the errors of disks."""

import contextlib
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from diffjax.core.errors import StorageError
from diffjax.core.json_types import Json, JsonObject


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns errors of the file system, in the code inside it, into StorageErrors of one line."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from None


@contextlib.contextmanager
def side_output(path: Path) -> Iterator[None]:
    """Turns errors of the code inside it into a warning, the first time for each path.

    For what a run writes beside its checkpoints: no such file is worth the end of the run.
    """
    try:
        yield
    except Exception as error:  # also of those who draw what is to be written
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        _warn_once(path, (why.strip() or type(error).__name__).splitlines()[0])


_warned: set[Path] = set()


def _warn_once(path: Path, why: str) -> None:
    if path not in _warned:
        _warned.add(path)
        said = why if why.startswith(str(path)) else f"{path}: {why}"
        print(f"warning: {said}; the run goes on without it", file=sys.stderr, flush=True)


# What a disk is guilty of, and not what the user asked for.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def disk_fault(error: BaseException) -> str:
    """What a disk is guilty of, if an error says so in its number or its text; else ""."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno in DISK_ERRORS else ""
    return next((text for text in map(os.strerror, DISK_ERRORS) if text in str(error)), "")


def publish(temporary: Path, path: Path) -> None:
    """Syncs a temporary file, renames it to its path, and syncs the folder."""
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Writes these bytes to `path`, completely or not at all, in place of an older file.

    Raises:
      StorageError: the disk is full or fails. The older file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storing(path):
        try:
            temporary.unlink(missing_ok=True)
            with open(
                temporary, "xb"
            ) as file:  # "x" refuses to follow a link that someone put there
                file.write(data)
            publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until the bytes of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path, remedy: str) -> JsonObject:
    """The JSON object in a file that this program wrote.

    remedy: what the user can do if the file is damaged; part of the message.

    Raises:
      FileNotFoundError: there is no such file.
      StorageError: the file cannot be read or is damaged. The message names file, reason and
      remedy.
    """
    try:
        return parse_json_object(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}; {remedy}") from None
    except ValueError as error:
        raise StorageError(f"{path}: damaged: {error}; {remedy}") from None


def parse_json_object(data: bytes | str) -> JsonObject:
    """The JSON object in the bytes of a file or in a text.

    Raises:
      ValueError: it is not a JSON object; the message says why in a few words.
    """
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError(f"holds a JSON {type(value).__name__}, want an object")
    return value


def parse_json(data: bytes | str) -> Json:
    """The JSON value in any bytes or text, which need not be trusted.

    Raises:
      ValueError: it is not JSON; the message says why in a few words.
    """
    try:
        text = data.decode() if isinstance(data, bytes) else data
        if not text.strip():
            raise ValueError("is empty")
        return json.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON at line {error.lineno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("is not JSON: nested too deep") from None


def set_aside(path: Path, why: str) -> None:
    """Renames a damaged file that the program can do without, and prints a warning."""
    aside = path.with_name(f"{path.name}.damaged")
    count = 1
    while aside.exists():
        count += 1
        aside = path.with_name(f"{path.name}.damaged{count}")
    with storing(path):
        os.replace(path, aside)
    print(f"warning: {path}: {why}; set aside as {aside.name}", file=sys.stderr, flush=True)


def free_bytes(path: Path) -> int:
    """The free bytes for us on the file system of `path`, which need not exist yet."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
