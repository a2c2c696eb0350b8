"""Captions alone, one after the other: from text files, JSONL, parquet, prepared data sets."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass
class Captions:
    """An iterable of captions, blank ones left out, that knows how far it has come.

    `records` counts the lines, rows or examples there are; one may hold several captions.
    """

    records: int
    open: Callable[[], Iterator[tuple[str, ...]]]
    read_records: int = 0
    read_captions: int = 0

    def __iter__(self) -> Iterator[str]:
        """From the start. Mistakes in the input are ValueErrors that name the file and line."""
        self.read_records = self.read_captions = 0
        for texts in self.open():
            self.read_records += 1
            for text in texts:
                if text.strip():
                    self.read_captions += 1
                    yield text.strip()

    def estimate(self) -> int:
        """How many captions there may be in all, by what has been read."""
        if not self.read_records:
            return self.records
        return round(self.read_captions * self.records / self.read_records)


def from_files(paths: Sequence[Path], field: str = "caption") -> Captions:
    """The captions of files, by their suffix: .jsonl, .parquet, or else text with one a line.

    `field` is the key of a JSON object or the parquet column: a string or a list of strings. A file
    that is not there, or without the field, is a ValueError.
    """
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
    kinds = {".jsonl": (_lines_in, _jsonl), ".parquet": (_rows_in, _parquet)}
    chosen = [(path, *kinds.get(path.suffix, (_lines_in, _text))) for path in paths]
    records = sum(count(path, field) for path, count, _ in chosen)
    return Captions(records, lambda: (r for path, _, read in chosen for r in read(path, field)))


def from_data_set(
    name: str, split: str, caption_key: str = "captions", data_dir: str | None = None
) -> Captions:
    """The captions of a split that `tfds.open_source` opens; its ValueErrors are passed on."""
    from diffjax.data.sources import tfds

    found = tfds.open_source(name, split, data_dir, caption_key=caption_key)
    return Captions(len(found), lambda: (found[i]["captions"] for i in range(len(found))))


def _lines_in(path: Path, field: str) -> int:
    with open(path, "rb") as stream:
        return sum(1 for _ in stream)


def _text(path: Path, field: str) -> Iterator[tuple[str, ...]]:
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield (line.decode("utf-8"),)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} line {number}: not UTF-8: {error.reason} at byte {error.start}"
                ) from None


def _jsonl(path: Path, field: str) -> Iterator[tuple[str, ...]]:
    for number, (line,) in enumerate(_text(path, field), 1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{where}: not JSON: {error}") from None
        if not isinstance(entry, dict) or field not in entry:
            has = sorted(entry) if isinstance(entry, dict) else f"a {type(entry).__name__}"
            raise ValueError(f"{where}: no field {field!r}, only {has}; --field names another")
        yield _texts(entry[field], f"{where}: field {field!r}")


def _parquet_file(path: Path, field: str) -> Any:
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


def _rows_in(path: Path, field: str) -> int:
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
    """A string, a list of strings, or null for none."""
    texts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where} is {str(value)[:40]!r}, want a string or a list of strings")
    return tuple(texts)
