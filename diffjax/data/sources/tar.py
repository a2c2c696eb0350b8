"""Tars of WebDataset: members of one name are one example, read where they stand."""

import bisect
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffjax.data.broken import BrokenRecord
from diffjax.data.record import Record
from diffjax.data.sources import beside
from diffjax.data.sources.files import relative_names, shown
from diffjax.data.sources.parts import OpenFiles
from diffjax.data.sources.tar_index import ROW, Index, index_of

MAX_TEXT_BYTES = 1_000_000
MAX_PICTURE_BYTES = 200_000_000
MAX_CLASS_BYTES = 20


def open_tars(paths: Sequence[Path], cache: Path | None = None) -> "Tars":
    """The examples of tars that have a picture; indices are kept in the folder `cache`.

    Raises:
      ValueError: a file is no tar, or compressed, or none of them has a picture.
      OSError: a file cannot be read.
    """
    tars = Tars(paths, [index_of(path, cache) for path in paths])
    if not len(tars):
        others = f", nor in the {len(paths) - 1} others" if len(paths) > 1 else ""
        raise ValueError(f"{shown(paths[0])}: no picture in it{others}")
    return tars


class Tars:
    """The examples of tars, in the order of the files. Grain's workers may pickle it."""

    unchecked = True

    def __init__(self, paths: Sequence[Path], indices: Sequence[Index]):
        self._paths, self._indices = tuple(paths), tuple(indices)
        self._ends = list(itertools.accumulate(len(index.names) for index in indices))
        self._shown = [shown(path.name) for path in paths]
        self._files = OpenFiles(paths)

    def __len__(self) -> int:
        """How many examples there are."""
        return self._ends[-1]

    def __getitem__(self, index: int) -> Record:
        """The record at `index`; BrokenRecord if it cannot be read."""
        shard, at = self._place(index)
        row = self._indices[shard].rows[at]
        record: dict[str, object] = {
            "name": self._name(shard, at), "captions": self._captions(shard, row),
        }  # fmt: skip
        if row["label"][0] >= 0:
            record["label"] = _class_of(self._files.read(shard, row["label"], MAX_CLASS_BYTES))
        record["image"] = self._files.read(shard, row["image"], MAX_PICTURE_BYTES)
        return record

    def __repr__(self) -> str:
        """As messages name it."""
        return f"{len(self._paths)} tars ({len(self)} examples)"

    def name(self, index: int) -> str:
        """The tar and the member, fit to be shown."""
        return self._name(*self._place(index))

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of the example at `index`; its picture is not read."""
        shard, at = self._place(index)
        return self._captions(shard, self._indices[shard].rows[at])

    def captioned(self) -> bool:
        """Whether any example has a text."""
        return any((index.rows["text"][:, 0] >= 0).any() for index in self._indices)

    def fingerprint(self) -> str:
        """A digest of the names and places of all members; no member is read."""
        digest = hashlib.sha256(f"tar {ROW}\n{relative_names(self._paths)}\n".encode())
        for index in self._indices:
            digest.update("\n".join(index.names).encode(errors="surrogateescape"))
            digest.update(index.rows.tobytes())
        return digest.hexdigest()

    def cut_short(self) -> list[Path]:
        """The tars that end before one of their members does."""
        return [path for path, index in zip(self._paths, self._indices, strict=True) if index.cut]

    def _place(self, index: int) -> tuple[int, int]:
        """Which tar, and which example of it."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} examples")
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)

    def _name(self, shard: int, at: int) -> str:
        return f"{self._shown[shard]}/{shown(self._indices[shard].names[at])}"

    def _captions(self, shard: int, row: np.void) -> tuple[str, ...]:
        if row["text"][0] < 0:
            return ()
        data = self._files.read(shard, row["text"], MAX_TEXT_BYTES)
        return _captions_of(data, is_json=bool(row["is_json"]))


def _class_of(data: bytes) -> int:
    try:
        return int(data)
    except ValueError:
        raise BrokenRecord(f"its class {data!r} is no number") from None


def _captions_of(data: bytes, *, is_json: bool) -> tuple[str, ...]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BrokenRecord(
            f"its caption is not UTF-8 ({error.reason} at byte {error.start})"
        ) from None
    if not is_json:
        return (text,)
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        raise BrokenRecord("its .json is no JSON") from None
    found = entry if isinstance(entry, dict) else {}
    texts = next((found[name] for name in beside.CAPTION_FIELDS if name in found), None)
    every = texts if isinstance(texts, list) else [texts]
    return tuple(text for text in every if isinstance(text, str))
