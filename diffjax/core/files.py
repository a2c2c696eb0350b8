"""Files that are whole or not there, and what is said when the disk takes no more."""

import contextlib
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


def read_json(path: Path, remedy: str) -> JsonObject:
    """The JSON object that a file of ours holds.

    Raises:
      FileNotFoundError: there is none.
      StorageError: it cannot be read, or is damaged: one line with the file, why, and the remedy.
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
    """The JSON object in a file's bytes or in a text.

    Raises:
      ValueError: what is wrong, in a few words.
    """
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError(f"holds a JSON {type(value).__name__}, want an object")
    return value


def parse_json(data: bytes | str) -> Json:
    """The JSON value in a file's bytes or in a text, whatever they are.

    Raises:
      ValueError: what is wrong, in a few words.
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
    """Rename a file that cannot be used, and that the work can do without; with a warning."""
    aside = path.with_name(f"{path.name}.damaged")
    count = 1
    while aside.exists():
        count += 1
        aside = path.with_name(f"{path.name}.damaged{count}")
    with storing(path):
        os.replace(path, aside)
    print(f"warning: {path}: {why}; set aside as {aside.name}", file=sys.stderr, flush=True)


def free_bytes(path: Path) -> int:
    """What the file system of `path`, which need not exist yet, still takes of us."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
