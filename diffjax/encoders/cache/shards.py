"""The shards of a cache: ArrayRecord files in one directory, which several processes may write.

`header.json` names the encoder. A shard holds a record per caption (see records.py), and last a
record with the header and the digests of all its captions. Its name is the digest of those digests,
so two shards never have the same name. A shard is written under a name that ends in .tmp, synced,
and then renamed. The next process deletes temporary files that a killed process left.
"""

import contextlib
import dataclasses
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
from diffjax.core.files import disk_fault, publish, storing
from diffjax.core.json_types import JsonObject
from diffjax.encoders.cache import records
from diffjax.encoders.cache.records import Damaged

FORMAT = "diffjax-text-2"
HEADER = "header.json"
SUFFIX = ".array_record"
# A chunk per record, for random reads. One writing thread was twice as fast as several.
WRITING = "group_size:1,uncompressed,max_parallelism:1"
READING = "readahead_buffer_size:0,max_parallelism:0"
OPEN_FILES = 256
Result = TypeVar("Result")
REMEDY = "delete this file and run python -m diffjax.embed again: it encodes the missing captions"


@dataclasses.dataclass(frozen=True)
class Header:
    """The encoder and storage of a cache; caches with equal headers have equal embeddings."""

    encoder: str
    fingerprint: str
    width: int
    max_length: int
    storage: str = "bfloat16"

    def __str__(self) -> str:
        """The header as messages print it, on one line."""
        return (
            f"{self.encoder} ({self.fingerprint[:8]}, width {self.width}, "
            f"max_length {self.max_length}, {self.storage})"
        )


def to_json(header: Header) -> bytes:
    """The header as JSON, with the version of the format and a checksum."""
    content = {"format": FORMAT, **dataclasses.asdict(header)}
    return (json.dumps(content | {"checksum": _checksum(content)}, indent=1) + "\n").encode()


def from_json(raw: bytes) -> Header:
    """The header that `to_json` wrote.

    Raises:
      ValueError: it is damaged, not a header, or of another version.
    """
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


def _checksum(content: JsonObject) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_header(folder: Path) -> Header:
    """The header of a cache.

    Raises:
      ValueError: there is no cache; names the directory and says what is wrong.
    """
    if folder.is_file():
        raise ValueError(
            f"{folder}: not an embeddings cache: it is a file, and a cache is a directory now; "
            "delete it or name another path"
        )
    try:
        return from_json((folder / HEADER).read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{folder}: no such embeddings cache") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder}: not an embeddings cache ({HEADER}: {error})") from None


def check_header(path: Path, found: Header, wanted: Header) -> None:
    """Raise a ValueError that names both headers unless they are equal."""
    if found != wanted:
        raise ValueError(f"{path} holds embeddings of {found}, want {wanted}")


def temporary_name(folder: Path, owner: str) -> Path:
    """A new temporary name. `locked` deletes such files if they are left behind."""
    return folder / f"{owner}.{uuid.uuid4().hex[:8]}.tmp"


def write_whole(path: Path, content: bytes, owner: str) -> None:
    """Write `content` completely, or raise a StorageError and leave no file.

    Unlike `core.files.write_whole`, leftovers of a killed process are deleted by `locked`.
    """
    temporary = temporary_name(path.parent, owner)
    try:
        with storing(path.parent):
            temporary.write_bytes(content)
            publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class ShardWriter:
    """Writes a shard; readers see it only after `close` has returned."""

    def __init__(self, folder: Path, header: Header, owner: str):
        self._folder, self._header = folder, header
        self._temporary = temporary_name(folder, owner)
        self._digests = bytearray()
        self.num_bytes = 0
        self._writer = self._try(lambda: ArrayRecordWriter(str(self._temporary), WRITING))

    def __len__(self) -> int:
        """The number of captions so far."""
        return len(self._digests) // 16

    def add(self, digest: bytes, record: bytes) -> None:
        """Add a caption; raises a StorageError if the disk is full."""
        self._try(lambda: self._writer.write(record))
        self._digests += digest
        self.num_bytes += len(record)

    def close(self) -> Path:
        """Finish the shard; returns its path. If the disk is full: StorageError, and no shard."""
        digests = bytes(self._digests)
        path = self._folder / f"{hashlib.sha256(digests).hexdigest()[:24]}{SUFFIX}"

        def finish() -> None:
            self._writer.write(records.add_checksum(to_json(self._header) + digests))
            self._writer.close()
            publish(self._temporary, path)

        self._try(finish)
        return path

    def discard(self) -> None:
        """Delete the unfinished shard."""
        with contextlib.suppress(RuntimeError, AttributeError):
            self._writer.close()
        self._temporary.unlink(missing_ok=True)

    def _try(self, act: Callable[[], Result]) -> Result:
        try:
            return act()
        except (RuntimeError, OSError) as error:
            self.discard()
            reason = disk_fault(error) or str(error)
            raise StorageError(f"{self._folder}: {reason.splitlines()[0]}") from None


@contextlib.contextmanager
def locked(folder: Path, owner: str, header: Header) -> Iterator[None]:
    """Lock the cache in `folder`, which is made if it does not exist, for writing as `owner`.

    Only one process at a time may write under the name of an owner. Temporary files of a killed
    process of that name are deleted.

    Raises:
      ValueError: the cache has another header; names both.
    """
    if folder.is_file() or (folder / HEADER).exists():
        check_header(folder, read_header(folder), header)
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
        except OSError:  # some file systems have no locks
            logging.warning(
                "%s: this disk has no locks; do not run two processes that write as %s",
                folder,
                owner,
            )
        for left in folder.glob(f"{owner}.*.tmp"):
            left.unlink(missing_ok=True)
        if not (folder / HEADER).exists():
            write_whole(folder / HEADER, to_json(header), owner)
        check_header(folder, read_header(folder), header)
        yield


def shard_names(folder: Path) -> list[str]:
    """The sorted names of the finished shards."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(SUFFIX))


class Shards:
    """Reads records of the shards of a directory; many threads may read at the same time.

    At most OPEN_FILES shards stay open, the most recently used ones.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._open: OrderedDict[str, ArrayRecordReader] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, name: str, position: int) -> bytes:
        """The record at a position; -1 is the last one.

        Raises:
          Damaged: names the shard and the remedy.
        """
        try:
            source = self._reader(name)
            # If the end of a shard is damaged, it opens as a shard without records.
            if not -1 <= position < source.num_records():
                raise Damaged("the list of its records")
            position %= source.num_records()
            # A range, because reading a list of positions takes time for every record of the shard.
            return source.read(position, position + 1)[0]
        except (RuntimeError, IndexError, ZeroDivisionError, Damaged) as error:
            raise damage_error(self._folder / name, position, error) from None

    def _reader(self, name: str) -> ArrayRecordReader:
        with self._lock:
            if name not in self._open:
                path = str(self._folder / name)
                self._open[name] = ArrayRecordReader(path, READING, file_reader_buffer_size=1 << 15)
                if len(self._open) > OPEN_FILES:
                    self._open.popitem(last=False)  # a thread that is reading it keeps it open
            self._open.move_to_end(name)
            return self._open[name]


def damage_error(path: Path, position: int, reason: object) -> Damaged:
    """The error that names the damaged shard, the record and the remedy."""
    where = "its list of captions" if position == -1 else f"record {position}"
    first = re.split(r";|\n", str(reason), maxsplit=1)[0]
    return Damaged(f"{path} is damaged at {where} ({first}); {REMEDY}")


def read_digests(folder: Path, name: str, header: Header) -> Shaped[np.ndarray, "n"]:
    """The digests (S16) of a shard's captions, in the order of its records.

    Raises:
      Damaged: the record of the digests is damaged.
      ValueError: the shard has another header; names both.
    """
    record = Shards(folder).read(name, -1)
    try:
        content = records.strip_checksum(record)
        end = content.index(b"}\n") + 2
        found = from_json(content[:end])
    except ValueError as error:
        raise damage_error(folder / name, -1, error) from None
    check_header(folder / name, found, header)
    return np.frombuffer(content[end:], "S16")
