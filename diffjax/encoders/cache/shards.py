"""A directory of ArrayRecord files that many processes fill; a file is whole or not there.

`header.json` says whose embeddings they are. A shard holds a record per caption (rows.py) and,
last, the header again with the captions' digests: it tells by itself what is in it. Its name is the
digest of those digests, so shards never collide. A shard is written under a name that ends in .tmp,
synced, and renamed: what a killed process leaves behind is swept by the next.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import re
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from absl import logging
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from jaxtyping import Shaped

from diffjax.core.errors import StorageError
from diffjax.core.files import publish, storing
from diffjax.encoders.cache import rows
from diffjax.encoders.cache.rows import Damaged

FORMAT = "diffjax-text-2"
HEADER = "header.json"
SUFFIX = ".array_record"
# Each record its own chunk for random reads; one writing thread was twice as quick as several.
WRITING = "group_size:1,uncompressed,max_parallelism:1"
READING = "readahead_buffer_size:0,max_parallelism:0"
OPEN_FILES = 256
Result = TypeVar("Result")
REMEDY = "delete this file and run python -m diffjax.embed again: it encodes what is missing"


@dataclasses.dataclass(frozen=True)
class Header:
    """Whose embeddings these are; two caches with equal headers agree on every caption."""

    encoder: str
    fingerprint: str
    width: int
    max_length: int
    storage: str = "bfloat16"

    def __str__(self) -> str:
        """As messages name it, on one line."""
        return (
            f"{self.encoder} ({self.fingerprint[:8]}, width {self.width}, "
            f"max_length {self.max_length}, {self.storage})"
        )


def to_json(header: Header) -> bytes:
    """With the format's version, and a checksum of the rest."""
    content = {"format": FORMAT, **dataclasses.asdict(header)}
    return (json.dumps(content | {"checksum": _checksum(content)}, indent=1) + "\n").encode()


def from_json(raw: bytes) -> Header:
    """What `to_json` wrote; a ValueError that says what is wrong."""
    try:
        content = json.loads(raw.decode())
        checksum = content.pop("checksum")
        version = content["format"]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise ValueError("not a header") from None
    if checksum != _checksum(content):
        raise Damaged("checksum differs")
    if version != FORMAT:
        raise ValueError(f"format {version}, this version reads {FORMAT}")
    return Header(**{k: v for k, v in content.items() if k != "format"})


def _checksum(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_header(folder: Path) -> Header:
    """The header of a cache; a ValueError names the directory and says what is wrong."""
    if folder.is_file():
        raise ValueError(
            f"{folder}: not an embeddings cache: a file, and a cache is a directory now; delete "
            "it or name another path"
        )
    try:
        return from_json((folder / HEADER).read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{folder}: no such embeddings cache") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder}: not an embeddings cache ({HEADER}: {error})") from None


def check(path: Path, found: Header, wanted: Header) -> None:
    """A ValueError that names both headers unless they are equal."""
    if found != wanted:
        raise ValueError(f"{path} holds embeddings of {found}, want {wanted}")


def temporary_name(folder: Path, owner: str) -> Path:
    """A new one, which `owned` sweeps if it is left behind."""
    return folder / f"{owner}.{uuid.uuid4().hex[:8]}.tmp"


def write_whole(path: Path, content: bytes, owner: str) -> None:
    """Write the file whole under this name; if that fails, a StorageError and no file is left."""
    temporary = temporary_name(path.parent, owner)
    try:
        with storing(path.parent):
            temporary.write_bytes(content)
            publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class ShardWriter:
    """A shard that is being written; readers see it only once `close` has returned."""

    def __init__(self, folder: Path, header: Header, owner: str):
        self._folder, self._header = folder, header
        self._temporary = temporary_name(folder, owner)
        self._digests = bytearray()
        self.num_bytes = 0
        self._writer = self._try(lambda: ArrayRecordWriter(str(self._temporary), WRITING))

    def __len__(self) -> int:
        """Captions so far."""
        return len(self._digests) // 16

    def add(self, digest: bytes, record: bytes) -> None:
        """One caption more; StorageError when the disk is full."""
        self._try(lambda: self._writer.write(record))
        self._digests += digest
        self.num_bytes += len(record)

    def close(self) -> Path:
        """The finished shard; StorageError, and no shard, when the disk is full."""
        digests = bytes(self._digests)
        path = self._folder / f"{hashlib.sha256(digests).hexdigest()[:24]}{SUFFIX}"

        def finish() -> None:
            self._writer.write(rows.sealed(to_json(self._header) + digests))
            self._writer.close()
            publish(self._temporary, path)

        self._try(finish)
        return path

    def discard(self) -> None:
        """Delete what has been written of it."""
        with contextlib.suppress(RuntimeError, AttributeError):
            self._writer.close()
        self._temporary.unlink(missing_ok=True)

    def _try(self, act: Callable[[], Result]) -> Result:
        try:
            return act()
        except (RuntimeError, OSError) as error:
            self.discard()
            known = (os.strerror(n) for n in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))
            reason = next((text for text in known if text in str(error)), str(error))
            raise StorageError(f"{self._folder}: {reason.splitlines()[0]}") from None


@contextlib.contextmanager
def owned(folder: Path, owner: str, header: Header) -> Iterator[None]:
    """`folder` as a cache of `header` in which one process at a time writes under this name.

    What a killed one left half-written is swept. A ValueError names both headers if the cache is
    another encoder's.
    """
    if folder.is_file() or (folder / HEADER).exists():
        check(folder, read_header(folder), header)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / f"{owner}.lock", "w")  # noqa: SIM115
    except OSError as error:
        raise StorageError(
            f"{folder}: {error.strerror}; set DIFFJAX_CACHE_DIR to a folder that can be written, "
            "or give diffjax.embed another --out"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.warning("%s: waiting for another process that writes as %s", folder, owner)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # some file systems have none
            logging.warning("%s: no locks here; let no two processes write as %s", folder, owner)
        for left in folder.glob(f"{owner}.*.tmp"):
            left.unlink(missing_ok=True)
        if not (folder / HEADER).exists():
            write_whole(folder / HEADER, to_json(header), owner)
        check(folder, read_header(folder), header)
        yield


def finished(folder: Path) -> list[str]:
    """The names of the shards, sorted."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(SUFFIX))


class Shards:
    """The shards of a directory by name, read at random by many threads.

    The least recently used beyond OPEN_FILES are closed.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._open: OrderedDict[str, ArrayRecordReader] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, name: str, position: int) -> bytes:
        """A record; Damaged names the shard and the remedy. Position -1 is the last."""
        try:
            source = self._reader(name)
            # A shard whose end is damaged opens as one without records.
            if not -1 <= position < source.num_records():
                raise Damaged("the list of its records")
            position %= source.num_records()
            # As a range: the time for a list of positions grows with the number of records.
            return source.read(position, position + 1)[0]
        except (RuntimeError, IndexError, ZeroDivisionError, Damaged) as error:
            raise damaged(self._folder / name, position, error) from None

    def _reader(self, name: str) -> ArrayRecordReader:
        with self._lock:
            if name not in self._open:
                path = str(self._folder / name)
                self._open[name] = ArrayRecordReader(path, READING, file_reader_buffer_size=1 << 15)
                if len(self._open) > OPEN_FILES:
                    self._open.popitem(last=False)  # a thread that reads it still holds it
            self._open.move_to_end(name)
            return self._open[name]


def damaged(path: Path, position: int, reason: object) -> Damaged:
    """The message that names the shard, the record and the remedy."""
    where = "its list of captions" if position == -1 else f"record {position}"
    first = re.split(r";|\n", str(reason), maxsplit=1)[0]
    return Damaged(f"{path} is damaged at {where} ({first}); {REMEDY}")


def contents(folder: Path, name: str, header: Header) -> Shaped[np.ndarray, "n"]:
    """The digests (S16) of a shard's captions, in its order.

    Damaged, or a ValueError that names both headers if the shard is another encoder's.
    """
    record = Shards(folder).read(name, -1)
    try:
        content = rows.unsealed(record)
        end = content.index(b"}\n") + 2
        found = from_json(content[:end])
    except ValueError as error:
        raise damaged(folder / name, -1, error) from None
    check(folder / name, found, header)
    return np.frombuffer(content[end:], "S16")
