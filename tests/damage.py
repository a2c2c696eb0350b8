"""Kinds of damage that happen to files, for tests of their readers."""

from collections.abc import Callable
from pathlib import Path

DEEP = 100_000


def _folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def _write(make: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: _replace(path, make(path.read_bytes()))


def _replace(path: Path, data: bytes) -> None:
    path.write_bytes(data)


# What is done to a file that holds JSON; none of them leaves what its reader wants.
KINDS: dict[str, Callable[[Path], None]] = {
    "empty": _write(lambda data: b""),
    "cut": _write(lambda data: data[: len(data) // 2]),
    "flipped": _write(lambda data: bytes([data[0] ^ 1]) + data[1:]),
    "zeros": _write(lambda data: bytes(len(data))),
    "list": _write(lambda data: b"[" + data.rstrip() + b"]\n"),
    "number": _write(lambda data: b"3\n"),
    "null": _write(lambda data: b"null\n"),
    "other program's": _write(lambda data: b'{"architectures": ["x"], "version": 3}\n'),
    "deep": _write(lambda data: b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    "deep list": _write(lambda data: b"[" * DEEP + b"]" * DEEP),
    "5,000 digits": _write(lambda data: b'{"stage": ' + b"7" * 5_000 + b"}\n"),
    "not UTF-8": _write(lambda data: b"\xff\xfe" + data),
    "UTF-16": _write(lambda data: data.decode().encode("utf-16")),
    "folder": _folder,
}
