"""Pictures and captions in the rows of parquet files, as Hugging Face's data sets have them."""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffjax.data.broken import BrokenRecord
from diffjax.data.record import Record
from diffjax.data.sources import parquet_columns
from diffjax.data.sources.files import relative_names, shown
from diffjax.data.sources.parquet_columns import Columns

if TYPE_CHECKING:
    import pyarrow

KEPT_BYTES = 512_000_000  # of decoded row groups; one is kept even if it is larger
MAX_PICTURE_BYTES = 200_000_000


def open_parquet(paths: Sequence[Path], *, image_key: str = "", caption_key: str = "") -> "Parquet":
    """The rows of parquet files of one schema.

    The picture is a column of bytes, of Hugging Face's {bytes, path}, or of paths below the file's
    own folder; the captions a column of texts, or of lists of texts. Without a key the column is
    found by its usual names.

    Raises:
      ValueError: pyarrow is not installed, a file is not parquet, or has no such columns.
    """
    files = [parquet_columns.opened(path) for path in paths]
    schema = files[0].schema_arrow
    for path, file in zip(paths, files, strict=True):
        if file.schema_arrow.names != schema.names:
            raise ValueError(f"{shown(path)}: its columns are not those of {shown(paths[0])}")
    columns = parquet_columns.find(paths[0], schema, image_key, caption_key)
    counts = [
        [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        for file in files
    ]
    return Parquet(paths, columns, counts)


class Parquet:
    """Rows by index. Grain's workers may pickle it: another process opens the files anew.

    A row costs its whole row group, so the groups read last are kept, up to KEPT_BYTES.
    """

    unchecked = True

    def __init__(
        self, paths: Sequence[Path], columns: Columns, rows_per_group: Sequence[Sequence[int]]
    ):
        self._paths, self._columns = tuple(paths), columns
        self._groups = [
            (file, i) for file, each in enumerate(rows_per_group) for i in range(len(each))
        ]
        self._rows_per_group = [list(each) for each in rows_per_group]
        self._ends = np.cumsum([rows for each in rows_per_group for rows in each])
        self._kept: OrderedDict[tuple[int, str], pyarrow.Table] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        """Without open files and what was read."""
        return Parquet, (self._paths, self._columns, self._rows_per_group)

    def __len__(self) -> int:
        """How many rows there are."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Record:
        """The record at `index`; BrokenRecord if the row cannot be read."""
        record: dict[str, object] = {"name": self.name(index), "captions": self.captions(index)}
        if self._columns.label:
            label = self._value(index, self._columns.label)
            if not isinstance(label, int):
                raise BrokenRecord("it has no class")
            record["label"] = label
        record["image"] = self._image(index)
        return record

    def __repr__(self) -> str:
        """As messages name it."""
        return f"{len(self._paths)} parquet files ({len(self)} rows)"

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, () if there are none or they have no names."""
        return self._columns.classes

    def name(self, index: int) -> str:
        """The file and the row."""
        group, row = self._place(index)
        file, inside = self._groups[group]
        before = sum(self._rows_per_group[file][:inside])
        return f"{shown(self._paths[file].name)} row {before + row}"

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of the row at `index`; its picture is not read."""
        if not self._columns.caption:
            return ()
        value = self._value(index, self._columns.caption)
        texts = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise BrokenRecord(f"its caption {str(value)[:40]!r} is no text")
        return tuple(texts)

    def captioned(self) -> bool:
        """Whether rows have captions."""
        return bool(self._columns.caption)

    def fingerprint(self) -> str:
        """A digest of the files' names, sizes and columns; no row is read."""
        about = (relative_names(self._paths), [path.stat().st_size for path in self._paths])
        columns = (self._columns.image, self._columns.caption, self._columns.label)
        return hashlib.sha256(json.dumps(["parquet", *about, *columns]).encode()).hexdigest()

    def _image(self, index: int) -> bytes:
        value = self._value(index, self._columns.image)
        path = value if isinstance(value, str) else None
        if isinstance(value, dict):
            path = value.get("path")
            value = value.get("bytes")
        if isinstance(value, bytes):
            return value
        if not isinstance(path, str):
            raise BrokenRecord("it has no picture")
        return self._file_below(index, path)

    def _file_below(self, index: int, path: str) -> bytes:
        """The bytes of a file that a row names; refused outside the parquet file's own folder."""
        folder = self._paths[self._groups[self._place(index)[0]][0]].resolve().parent
        try:
            there = (folder / path).resolve()
            if not there.is_relative_to(folder):
                raise BrokenRecord(f"its picture {shown(path)[:80]!r} lies outside the folder")
            if there.stat().st_size > MAX_PICTURE_BYTES:
                raise BrokenRecord(f"its picture has more than {MAX_PICTURE_BYTES} bytes")
            return there.read_bytes()
        except (OSError, ValueError) as error:
            if isinstance(error, BrokenRecord):
                raise
            why = error.strerror if isinstance(error, OSError) else error
            raise BrokenRecord(f"its picture {shown(path)[:80]!r}: {why}") from None

    def _value(self, index: int, column: str) -> object:
        group, row = self._place(index)
        return self._values(group, column)[row].as_py()

    def _values(self, group: int, column: str) -> "pyarrow.ChunkedArray":
        with self._lock:
            key = group, column
            if key not in self._kept:
                file, inside = self._groups[group]
                self._kept[key] = self._read(file, inside, column)
                while len(self._kept) > 1 and self._kept_bytes() > KEPT_BYTES:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key].column(0)

    def _read(self, file: int, group: int, column: str) -> "pyarrow.Table":
        from pyarrow import lib

        path = self._paths[file]
        try:
            with parquet_columns.opened(path) as opened:
                return opened.read_row_group(group, columns=[column], use_threads=False)
        except (lib.ArrowException, OSError, IndexError, ValueError) as error:
            raise BrokenRecord(
                f"{shown(path)} is damaged: {parquet_columns.first_line(error)}"
            ) from None

    def _kept_bytes(self) -> int:
        return sum(table.nbytes for table in self._kept.values())

    def _place(self, index: int) -> tuple[int, int]:
        """Which group, and which row of it."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} rows")
        group = int(np.searchsorted(self._ends, index, side="right"))
        return group, index - (int(self._ends[group - 1]) if group else 0)
