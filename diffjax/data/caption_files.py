"""Reads captions from files of text, JSON, CSV and parquet; the suffix says which."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from diffjax.data.captions import Captions

if TYPE_CHECKING:
    from pyarrow import parquet

UTF8_MARK = b"\xef\xbb\xbf"


class Kind(NamedTuple):
    """How to read a kind of file: (path, field) -> the number of records, and the texts of each."""

    records: Callable[[Path, str], int]
    read: Callable[[Path, str], Iterator[tuple[str, ...]]]


def from_files(paths: Sequence[Path], field: str = "caption") -> Captions:
    """The captions in files, whose suffix (in upper or lower case) must be one of KINDS.

    `field` is the key of a JSON object, or the column of CSV or parquet. It holds a string, a list
    of strings or null. A text file has one caption a line, and no fields.

    Raises:
      ValueError: a file does not exist, is of another kind, or lacks the field.
    """
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
    chosen = [(path, _kind(path)) for path in paths]
    records = sum(kind.records(path, field) for path, kind in chosen)
    return Captions(records, lambda: (r for path, kind in chosen for r in kind.read(path, field)))


def _kind(path: Path) -> Kind:
    suffix = path.suffix.lower()
    if suffix not in KINDS:
        known = ", ".join(sorted(filter(None, KINDS)))
        raise ValueError(f"{path}: no kind of file that is known, which are {known}")
    return KINDS[suffix]


def _count_lines(path: Path, field: str) -> int:
    with open(path, "rb") as stream:
        return sum(1 for _ in stream)


def _lines(path: Path) -> Iterator[str]:
    """The lines with their line ends, but without a byte order mark."""
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if number == 1:
                line = line.removeprefix(UTF8_MARK)
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} line {number}: not UTF-8: {error.reason} at byte {error.start}"
                ) from None


def _text(path: Path, field: str) -> Iterator[tuple[str, ...]]:
    for line in _lines(path):
        yield (line,)


def _json_lines(path: Path, field: str) -> Iterator[tuple[str, ...]]:
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            where = f"{path} line {number}"
            yield _field_of(_parsed(line, where), field, where)


def _json_entries(path: Path) -> list[object]:
    """The entries of a JSON list; a single object counts as one entry."""
    whole = _parsed("".join(_lines(path)), str(path))
    return whole if isinstance(whole, list) else [whole]


def _count_json(path: Path, field: str) -> int:
    return len(_json_entries(path))


def _json(path: Path, field: str) -> Iterator[tuple[str, ...]]:
    for number, entry in enumerate(_json_entries(path)):
        where = f"{path} entry {number}"
        yield (entry,) if isinstance(entry, str) else _field_of(entry, field, where)


def _parsed(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{where}: not JSON: nested too deep") from None
    except ValueError as error:
        line_by_line = "; one object a line is .jsonl" if "Extra data" in str(error) else ""
        raise ValueError(f"{where}: not JSON: {error}{line_by_line}") from None


def _field_of(entry: object, field: str, where: str) -> tuple[str, ...]:
    if not isinstance(entry, dict) or field not in entry:
        has = sorted(entry) if isinstance(entry, dict) else f"a {type(entry).__name__}"
        raise ValueError(f"{where}: no field {field!r}, only {has}; --field names another")
    return _texts(entry[field], f"{where}: field {field!r}")


def _csv(path: Path, field: str) -> Iterator[tuple[str, ...]]:
    rows = csv.reader(_lines(path), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        names = [name.strip() for name in next(rows, [])]
        if field not in names:
            raise ValueError(f"{path}: no column {field!r}, only {names}; --field names another")
        column = names.index(field)
        for row in rows:
            if row:  # skips empty lines
                yield (row[column],) if column < len(row) else ()
    except csv.Error as error:
        raise ValueError(f"{path} line {rows.line_num}: not CSV: {error}") from None


def _count_csv(path: Path, field: str) -> int:
    return sum(1 for _ in _csv(path, field))


def _parquet_file(path: Path, field: str) -> "parquet.ParquetFile":
    try:
        from pyarrow import lib, parquet
    except ImportError:
        raise ValueError(f"{path}: parquet needs pyarrow: pip install 'diffjax[parquet]'") from None
    try:
        opened = parquet.ParquetFile(path)
    except (lib.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not parquet: {str(error).splitlines()[0]}") from None
    if field not in opened.schema_arrow.names:
        has = sorted(opened.schema_arrow.names)
        raise ValueError(f"{path}: no column {field!r}, only {has}; --field names another")
    return opened


def _count_rows(path: Path, field: str) -> int:
    with _parquet_file(path, field) as opened:
        return opened.metadata.num_rows


def _parquet(path: Path, field: str) -> Iterator[tuple[str, ...]]:
    row = 0
    with _parquet_file(path, field) as opened:
        for batch in opened.iter_batches(columns=[field]):
            for value in batch.column(0).to_pylist():
                yield _texts(value, f"{path} row {row}: column {field!r}")
                row += 1


def _texts(value: object, where: str) -> tuple[str, ...]:
    """The texts of a field, which holds a string, a list of strings, or null."""
    texts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where} is {str(value)[:40]!r}, want a string or a list of strings")
    return tuple(texts)


_OF_LINES, _OF_CSV = Kind(_count_lines, _text), Kind(_count_csv, _csv)
KINDS = {
    "": _OF_LINES,
    ".txt": _OF_LINES,
    ".json": Kind(_count_json, _json),
    ".jsonl": Kind(_count_lines, _json_lines),
    ".csv": _OF_CSV,
    ".tsv": _OF_CSV,
    ".parquet": Kind(_count_rows, _parquet),
}
