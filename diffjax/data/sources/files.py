"""Which files a source is made of: walks folders, opens patterns, shows paths in messages."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
MAX_FILES_OF_BRACES = 1_000_000


class Found(NamedTuple):
    """A file below a folder: its path from there with slashes.

    size: in bytes, -1 if the file cannot be read. changed_ns: when it was changed last.
    """

    path: str
    size: int
    changed_ns: int = 0


def below(root: Path) -> Iterator[Found]:
    """All files below a folder, folders and files each in the order of their names.

    Names that begin with a dot are left out, and so is `__MACOSX`. Links are followed, but no
    folder is entered twice. A link to nothing, and an empty folder, are found like a file of
    size -1.

    Raises:
      OSError: the folder itself cannot be read.
    """
    yield from _below(str(root), "", set())


def expand(pattern: str) -> list[Path]:
    """The files that a pattern names, sorted: `*`, `?`, `[...]`, `**` and `{000..099}`.

    Raises:
      ValueError: there is none; one line.
    """
    found: list[str] = []
    for one in _numbered(os.path.expanduser(pattern)):
        found += glob.glob(one, recursive=True) if glob.has_magic(one) else [one]
    files = [Path(name) for name in sorted(set(found)) if os.path.isfile(name)]
    if not files:
        raise ValueError(f"{pattern}: there is no such file")
    return files


def shown(path: str | os.PathLike) -> str:
    """A path for messages: on one line, and printable whatever its bytes are."""
    plain = os.fspath(path)
    if isinstance(plain, str) and plain.isprintable():  # of a million names, nearly all
        return plain
    text = os.fsencode(path).decode(errors="replace")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def relative_names(paths: Sequence[Path]) -> str:
    """The paths from the folder that holds them all, a line each and printable."""
    common = os.path.commonpath([path.absolute().parent for path in paths])
    return "\n".join(shown(os.path.relpath(path.absolute(), common)) for path in paths)


def _below(folder: str, prefix: str, seen: set[tuple[int, int]]) -> Iterator[Found]:
    about = os.stat(folder)
    if (about.st_dev, about.st_ino) in seen:
        return
    seen.add((about.st_dev, about.st_ino))
    with os.scandir(folder) as entries:
        inside = sorted(
            (e for e in entries if not e.name.startswith(".") and e.name != "__MACOSX"),
            key=lambda entry: entry.name,
        )
    if not inside and prefix:
        yield Found(prefix[:-1], -1)
    for entry in inside:
        path = prefix + entry.name
        try:
            if entry.is_dir():
                yield from _below(entry.path, path + "/", seen)
            else:
                about = entry.stat()
                yield Found(path, about.st_size, about.st_mtime_ns)
        except OSError:
            yield Found(path, -1)


def _numbered(pattern: str) -> Iterator[str]:
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    first, last = braces.groups()
    if int(last) - int(first) >= MAX_FILES_OF_BRACES:
        raise ValueError(f"{pattern}: more than {MAX_FILES_OF_BRACES} files")
    for number in range(int(first), int(last) + 1):
        text = f"{number:0{len(first)}d}"
        yield from _numbered(pattern[: braces.start()] + text + pattern[braces.end() :])
