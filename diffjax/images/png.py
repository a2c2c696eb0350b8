"""PNG files that say how they were made.

What is said is JSON in an iTXt chunk under the key "diffjax" (PNG 1.2, sec. 4.2.3.3). Sizes are
looked at before anything is decoded or unpacked: a small file may claim to be a huge picture.
Every error is a ValueError of one line that begins with the path.
"""

import io
import json
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from diffjax.core.files import write_whole

KEY = "diffjax"
MAX_PIXELS = 64_000_000
MAX_METADATA_BYTES = 1 << 18
# Of the texts that other programs left: how many, and how many bytes in all, packed.
MAX_TEXTS, MAX_TEXT_BYTES = 32, 1 << 22
MAX_CHUNKS = 100_000
SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Chunk(NamedTuple):
    """A chunk of a PNG: its kind, and where its data lie in the file."""

    kind: bytes
    start: int
    length: int


def write(path: Path, picture: UInt8[np.ndarray, "h w 3"], metadata: dict | None = None) -> None:
    """Write the picture in place of what is there, whole or not at all; its folder exists.

    Raises:
      StorageError: the disk refuses.
    """
    write_whole(path, encode(picture, metadata))


def encode(picture: UInt8[np.ndarray, "h w 3"], metadata: dict | None = None) -> bytes:
    """The bytes of a PNG file; `metadata` is what `read_metadata` will give back."""
    texts = PngImagePlugin.PngInfo()
    if metadata is not None:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
        if len(text.encode()) > MAX_METADATA_BYTES:
            raise ValueError(f"metadata of {len(text)} characters: at most {MAX_METADATA_BYTES}")
        texts.add_itxt(KEY, text)
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(out, "PNG", pnginfo=texts)
    return out.getvalue()


def read_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels, from the header alone."""
    with _opened(path) as file:
        return _size(path, file)


def read_metadata(path: Path) -> dict[str, Any] | None:
    """What `write` was given, None if the picture says nothing; no pixel is decoded.

    Raises:
      ValueError: no PNG, a damaged or an oversized one, or its text is no JSON object.
    """
    with _opened(path) as file:
        _size(path, file)
        texts = [
            text
            for chunk in _chunks(path, file)
            if chunk.kind == b"iTXt" and (text := _text_of(path, file, chunk)) is not None
        ]
    if not texts:
        return None
    _require(len(texts) == 1, path, f"{len(texts)} texts are called {KEY!r}, one was written")
    try:
        found = json.loads(texts[0].decode(), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: its text {KEY!r} is no JSON") from None
    _require(isinstance(found, dict), path, f"its text {KEY!r} is no JSON object")
    return found


def check_whole(path: Path) -> None:
    """Nothing if every byte of the PNG is as it was written, by its chunks' sums, to the last.

    Raises:
      ValueError: it is cut off, damaged, or no PNG.
    """
    with _opened(path) as file:
        _size(path, file)
        last = b""
        for chunk in _chunks(path, file):
            file.seek(chunk.start)
            data = file.read(chunk.length)
            (crc,) = struct.unpack(">I", file.read(4))
            _require(zlib.crc32(data, zlib.crc32(chunk.kind)) == crc, path, "is damaged")
            last = chunk.kind
        _require(last == b"IEND", path, "is cut off")


def read(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a PNG as `write` got them; for pictures of others see `read.read`.

    Raises:
      ValueError: no PNG, a damaged or an oversized one.
    """
    check_whole(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG",)) as image:
                return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's readers share no base
        raise ValueError(f"{path}: cannot be read: {error}") from None


def _opened(path: Path) -> BinaryIO:
    _require(path.is_file(), path, "no such file")
    try:
        return open(path, "rb")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None


def _size(path: Path, file: BinaryIO) -> tuple[int, int]:
    file.seek(0)
    head = file.read(24)
    whole = len(head) == 24 and head[:8] == SIGNATURE and head[12:16] == b"IHDR"
    _require(whole, path, "is no PNG")
    width, height = struct.unpack(">II", head[16:24])
    said = f"says that it is {width} x {height} px, of at most {MAX_PIXELS:,} in all"
    _require(0 < width * height <= MAX_PIXELS, path, said)
    return width, height


def _chunks(path: Path, file: BinaryIO) -> Iterator[Chunk]:
    """The chunks in their order, without their data; texts must keep within the limits."""
    end, place = path.stat().st_size, len(SIGNATURE)
    texts = text_bytes = 0
    for _ in range(MAX_CHUNKS):
        if place == end:
            return
        file.seek(place)
        head = file.read(8)
        _require(len(head) == 8, path, "is cut off")
        length, kind = struct.unpack(">I4s", head)
        _require(place + 12 + length <= end, path, "is cut off")
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            texts, text_bytes = texts + 1, text_bytes + length
            few = texts <= MAX_TEXTS and text_bytes <= MAX_TEXT_BYTES
            _require(few, path, f"holds more than {MAX_TEXTS} texts or {MAX_TEXT_BYTES:,} bytes")
        yield Chunk(kind, place + 8, length)
        place += 12 + length
        if kind == b"IEND":
            _require(place == end, path, "goes on after its end")
            return
    _require(False, path, f"has more than {MAX_CHUNKS} chunks")


def _text_of(path: Path, file: BinaryIO, chunk: Chunk) -> bytes | None:
    """The text of an iTXt chunk, if it is ours: key, packed?, method, language, its key, text."""
    file.seek(chunk.start)
    if file.read(len(KEY) + 1) != KEY.encode() + b"\0":
        return None
    file.seek(chunk.start)
    _require(chunk.length <= MAX_METADATA_BYTES + 64, path, f"its text {KEY!r} is too long")
    data = file.read(chunk.length)
    (crc,) = struct.unpack(">I", file.read(4))
    _require(zlib.crc32(data, zlib.crc32(chunk.kind)) == crc, path, f"its text {KEY!r} is damaged")
    rest = data[len(KEY) + 1 :]
    parts = rest[2:].split(b"\0", 2)
    _require(len(rest) >= 2 and len(parts) == 3, path, f"its text {KEY!r} is damaged")
    return _unpacked(path, parts[2]) if rest[0] else parts[2]


def _unpacked(path: Path, packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, MAX_METADATA_BYTES + 1)
    except zlib.error:
        raise ValueError(f"{path}: its text {KEY!r} is damaged") from None
    _require(len(text) <= MAX_METADATA_BYTES, path, f"its text {KEY!r} is too long")
    return text


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _require(holds: bool, path: Path, what: str) -> None:
    if not holds:
        raise ValueError(f"{path}: {what}")
