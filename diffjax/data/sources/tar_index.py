"""Where the examples of a WebDataset tar stand: an index that is made once and kept.

Only headers are read. Regular files count; links, devices and folders are passed over, and names
are only names: nothing is extracted, written or unpickled.
"""

import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffjax.core.errors import StorageError
from diffjax.core.files import write_whole
from diffjax.data.sources.files import shown
from diffjax.images.read import SUFFIXES

TEXT_SUFFIXES = (".txt", ".caption", ".text", ".json")
CLASS_SUFFIX = ".cls"
FORMAT = 2  # of an index on the disk
# Where an example's picture, text and class begin, and their sizes in bytes; -1 for what is not.
ROW = np.dtype([(name, "<i8", 2) for name in ("image", "text", "label")] + [("is_json", "?")])
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"(\xb5/\xfd": "zstd"}


@dataclass(frozen=True)
class Index:
    """The examples of one tar that have a picture: their names and a ROW for each.

    cut: the tar ends before a member does; what stands whole before that is here.
    """

    names: tuple[str, ...]
    rows: np.ndarray
    cut: bool


def index_of(path: Path, cache: Path | None = None) -> Index:
    """The index of a tar, from the folder `cache` if it was made before.

    Raises:
      ValueError: not a tar, or a compressed one, in which nothing is found without unpacking.
      OSError: the tar cannot be read.
    """
    if cache is None:
        return _made(path)
    about = path.stat()
    key = f"{FORMAT} {path.resolve()} {about.st_size} {about.st_mtime_ns}"
    kept = cache / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.npz"
    try:
        with np.load(kept, allow_pickle=False) as arrays:
            names = arrays["names"].tobytes().decode(errors="surrogateescape").split("\n")
            found = Index(tuple(names[: len(arrays["rows"])]), arrays["rows"], bool(arrays["cut"]))
            if found.rows.dtype == ROW and len(found.names) == len(found.rows):
                return found
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there, or damaged: it costs a second to make
    made = _made(path)
    _keep(kept, made)
    return made


def _made(path: Path) -> Index:
    names: list[str] = []
    rows: list[np.ndarray] = []
    size, cut = path.stat().st_size, False
    try:
        with tarfile.open(path, "r:") as tar:
            for key, members in _examples(tar):
                row, whole = _row(members, size)
                cut |= not whole
                if row["image"][0] >= 0:
                    names.append(key)
                    rows.append(row)
            cut |= _goes_on(path, tar.offset)
    except tarfile.ReadError as error:
        if not rows:
            raise ValueError(f"{shown(path)}: {_why(path, error)}") from None
        cut = True
    return Index(tuple(names), np.array(rows, ROW), cut)


def _examples(tar: tarfile.TarFile) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    """Neighbouring members whose paths are equal up to the first dot of the file's name."""
    key, members = "", list[tarfile.TarInfo]()
    for member in tar:
        tar.members = []  # type: ignore[attr-defined]  # or it keeps all of them
        if not member.isreg() or member.issparse():
            continue
        folder, slash, name = member.name.rpartition("/")
        here = folder + slash + name.partition(".")[0]
        if here != key and members:
            yield key, members
            members = []
        key = here
        members.append(member)
    if members:
        yield key, members


def _row(members: Sequence[tarfile.TarInfo], file_size: int) -> tuple[np.ndarray, bool]:
    """A scalar ROW, and whether all members end within the file."""
    row = np.array((-1, -1, -1, False), ROW)
    whole = True
    for member in members:
        suffix = os.path.splitext(member.name)[1].lower()
        place = member.offset_data, member.size
        if sum(place) > file_size:
            whole = False
        elif suffix in SUFFIXES and row["image"][0] < 0:
            row["image"] = place
        elif suffix in TEXT_SUFFIXES and (row["text"][0] < 0 or row["is_json"]):
            row["text"], row["is_json"] = place, suffix == ".json"
        elif suffix == CLASS_SUFFIX:
            row["label"] = place
    return row, whole


def _goes_on(path: Path, end: int) -> bool:
    """Whether more than zeros stands behind the last whole member."""
    with open(path, "rb") as stream:
        stream.seek(end)
        return bool(stream.read(tarfile.BLOCKSIZE).strip(b"\0"))


def _keep(kept: Path, made: Index) -> None:
    """Write an index for the next time; where that cannot be, it will be made again."""
    names = "\n".join(name.replace("\n", " ") for name in made.names)
    as_bytes = np.frombuffer(names.encode(errors="surrogateescape"), np.uint8)
    packed = io.BytesIO()
    np.savez(packed, names=as_bytes, rows=made.rows, cut=np.array(made.cut))
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, packed.getvalue())
    except (OSError, StorageError):
        pass


def _why(path: Path, error: Exception) -> str:
    with open(path, "rb") as stream:
        start = stream.read(6)
    for magic, name in _PACKED.items():
        if start.startswith(magic):
            return f"compressed by {name}; unpack it to a plain .tar"
    return f"not a tar: {' '.join(str(error).split())[:80]}"
