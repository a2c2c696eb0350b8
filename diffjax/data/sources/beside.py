"""Captions that lie beside pictures: `NAME.txt`, and tables such as metadata.jsonl, captions.csv.

A table stands in the folder of its pictures or above, and names them by their paths from there.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from diffjax.data.broken import BrokenRecord
from diffjax.data.sources.files import Found, shown

TEXT_SUFFIXES = (".txt", ".caption")
TABLE_NAMES = tuple(
    f"{name}.{kind}"
    for name in ("metadata", "captions")
    for kind in ("jsonl", "json", "csv", "tsv", "txt")
)
FILE_FIELDS = ("file_name", "file", "filename", "image", "image_path", "path", "name")
CAPTION_FIELDS = ("captions", "caption", "text", "texts", "prompt", "description", "sentence")
MAX_TABLE_BYTES = 2_000_000_000
MAX_TEXT_BYTES = 1_000_000


class TableError(ValueError):
    """A table that cannot be read; one line that names it and says what it should be."""


def read_table(path: Path) -> dict[str, tuple[str, ...]]:
    """The captions of each picture, by the path that the table gives it.

    JSON lines: an object a line. JSON: a list of such objects, or one object {path: caption or
    captions}. CSV and TSV: a first line with the names of the columns. A `.txt` is taken for TSV
    if its first line has a tab, and for CSV else. A picture may stand in several lines.

    Raises:
      TableError: it is none of these, or has no column of paths or captions.
    """
    text = _text_of(path)
    read = {".jsonl": _json_lines, ".json": _json}.get(path.suffix.lower(), _columns)
    captions: dict[str, list[str]] = {}
    for name, texts in read(path, text):
        captions.setdefault(str(PurePosixPath(name)), []).extend(texts)
    return {name: tuple(texts) for name, texts in captions.items()}


def read_texts(path: Path) -> tuple[str, ...]:
    """The captions in a picture's own text file, one a line.

    Raises:
      BrokenRecord: not UTF-8, too large, or unreadable.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise BrokenRecord(f"its caption {shown(path.name)}: {error.strerror}") from None
    if len(data) > MAX_TEXT_BYTES:
        raise BrokenRecord(f"its caption {shown(path.name)} has more than {MAX_TEXT_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BrokenRecord(
            f"its caption {shown(path.name)} is not UTF-8 ({error.reason} at byte {error.start})"
        ) from None
    return tuple(filter(None, map(str.strip, text.splitlines())))


def is_table(path: str) -> bool:
    """Whether a file has the name of a table of captions."""
    return path.rpartition("/")[2].lower() in TABLE_NAMES


def tables_above(whole: Path, root: Path) -> list[Found]:
    """The tables beside the folder of a split, which name pictures by paths from there."""
    if whole == root:
        return []
    beside_it = sorted(path for path in whole.iterdir() if is_table(path.name))
    about = [(path.name, path.stat()) for path in beside_it]
    return [Found(f"../{name}", one.st_size, one.st_mtime_ns) for name, one in about]


def captions_of_tables(
    root: Path, tables: Sequence[Found], files: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """The captions that tables have for pictures that are there, by the paths of these.

    Raises:
      TableError: a table cannot be read, or names no picture that is there.
    """
    there, captions = set(files), dict[str, tuple[str, ...]]()
    for table in tables:
        named = read_table(root / table.path)
        folder = table.path.rpartition("/")[0]
        if folder == "..":  # other splits have pictures in it too
            inside = f"{root.name}/"
            found = {
                name.removeprefix(inside): each
                for name, each in named.items()
                if name.startswith(inside)
            }
        else:
            found = {f"{folder}/{name}" if folder else name: each for name, each in named.items()}
        known = {name: each for name, each in found.items() if name in there}
        if found and not known:
            raise TableError(
                f"{shown(root / table.path)}: names {len(named)} pictures such as "
                f"{shown(next(iter(named)))[:80]!r}, and none of them is there; want paths from "
                "its own folder, with their endings"
            )
        captions |= known
    return captions


def texts_of(found: Sequence[Found], files: Sequence[str]) -> dict[str, str]:
    """The text files of the pictures, by their paths with the suffix in small letters."""
    texts = [one.path for one in found if one.path.lower().endswith(TEXT_SUFFIXES)]
    if not texts:
        return {}
    stems = {*files, *(os.path.splitext(path)[0] for path in files)}
    split = [(os.path.splitext(path), path) for path in texts]
    return {stem + suffix.lower(): path for (stem, suffix), path in split if stem in stems}


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise TableError(f"{shown(path)}: more than {MAX_TABLE_BYTES} bytes")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(
            f"{shown(path)}: not UTF-8: {error.reason} at byte {error.start}"
        ) from None
    except OSError as error:
        raise TableError(f"{shown(path)}: {error.strerror}") from None


def _json_lines(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    called = shown(path)
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            where = f"{called} line {number}"
            yield _entry(_parsed(line, where), where)


def _json(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    whole = _parsed(text, shown(path))
    if isinstance(whole, Mapping):
        for name, value in whole.items():
            yield name, _texts(value, f"{shown(path)}: {name[:40]!r}")
        return
    if not isinstance(whole, list):
        raise TableError(f"{shown(path)}: want a list of objects, or an object of paths")
    called = shown(path)
    for number, entry in enumerate(whole):
        where = f"{called} entry {number}"
        yield _entry(entry, where)


def _entry(entry: object, where: str) -> tuple[str, list[str]]:
    if not isinstance(entry, Mapping):
        raise TableError(f"{where}: want an object with a path and a caption")
    name = _field(entry, FILE_FIELDS)
    if not isinstance(name, str):
        raise TableError(f"{where}: no path of a picture under {', '.join(FILE_FIELDS)}")
    return name, _texts(_field(entry, CAPTION_FIELDS), where)


def _columns(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    first, _, _ = text.partition("\n")
    tabs = path.suffix.lower() == ".tsv" or (path.suffix.lower() == ".txt" and "\t" in first)
    rows = csv.reader(io.StringIO(text), delimiter="\t" if tabs else ",")
    try:
        names = [name.strip().lower() for name in next(rows, [])]
        file = _column(path, names, FILE_FIELDS)
        caption = _column(path, names, CAPTION_FIELDS)
        for row in rows:
            if len(row) > max(file, caption):
                yield row[file].strip(), [row[caption]]
    except csv.Error as error:
        raise TableError(f"{shown(path)} line {rows.line_num}: {error}") from None


def _column(path: Path, names: list[str], wanted: tuple[str, ...]) -> int:
    for name in wanted:
        if name in names:
            return names.index(name)
    raise TableError(
        f"{shown(path)}: its columns are {names}; want one of {', '.join(wanted)}, or rename the "
        "file if it is no table of captions"
    )


def _field(entry: Mapping[str, object], wanted: tuple[str, ...]) -> object:
    return next((entry[name] for name in wanted if name in entry), None)


def _parsed(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except RecursionError:
        raise TableError(f"{where}: not JSON: nested too deep") from None
    except ValueError as error:
        raise TableError(f"{where}: not JSON: {error}") from None


def _texts(value: object, where: str) -> list[str]:
    """A string, a list of strings, or null for none."""
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, Iterable) or isinstance(texts, Mapping):
        raise TableError(f"{where}: the caption {str(value)[:40]!r} is no text")
    found = list(texts)
    if not all(isinstance(text, str) for text in found):
        raise TableError(f"{where}: the captions {str(value)[:40]!r} are no texts")
    return found
