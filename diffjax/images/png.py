"""PNG files with metadata that say how the picture was made.

The metadata are JSON in an iTXt chunk with the key "diffjax" (PNG 1.2, sec. 4.2.3.3). Sizes are
checked before anything is decoded or decompressed, because a small file may claim to be a huge
picture. A file that is refused raises a ValueError of one line that begins with the path.
"""

import io
import json
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from diffjax.core.files import write_whole
from diffjax.core.json_types import JsonObject

KEY = "diffjax"
MAX_PIXELS = 64_000_000
MAX_METADATA_BYTES = 1 << 18
# Limits for the texts of other programs: their number, and their compressed bytes in all.
MAX_TEXTS, MAX_TEXT_BYTES = 32, 1 << 22
MAX_CHUNKS = 100_000
SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Chunk(NamedTuple):
    """A chunk of a PNG: its kind, the offset of its data in the file, and their length."""

    kind: bytes
    start: int
    length: int


def write(
    path: Path, picture: UInt8[np.ndarray, "h w 3"], metadata: Mapping[str, object] | None = None
) -> None:
    """Write the picture completely or not at all, in place of an older file; its folder must exist.

    Raises:
      StorageError: the disk is full or fails.
    """
    write_whole(path, encode(picture, metadata))


def encode(
    picture: UInt8[np.ndarray, "h w 3"], metadata: Mapping[str, object] | None = None
) -> bytes:
    """The bytes of a PNG file; `metadata` is what `read_metadata` will return."""
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
    """(width, height) in pixels. Only the header is read."""
    with _opened(path) as file:
        return _size(path, file)


def read_metadata(path: Path) -> JsonObject | None:
    """The metadata that `write` was given, or None; no pixel is decoded.

    Raises:
      ValueError: it is not a PNG, it is damaged or too large, or its text is not a JSON object.
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
    _require(len(texts) == 1, path, f"{len(texts)} texts have the key {KEY!r}, one is allowed")
    try:
        found = json.loads(texts[0].decode(), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: its text {KEY!r} is not JSON") from None
    _require(isinstance(found, dict), path, f"its text {KEY!r} is not a JSON object")
    return found


def check_whole(path: Path) -> None:
    """Check every byte of the PNG against the checksums of its chunks.

    Raises:
      ValueError: it is truncated or damaged, or not a PNG.
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
    """The pixels of a PNG that `write` made. `read.read` reads pictures of other programs.

    Raises:
      ValueError: it is not a PNG, or it is damaged or too large.
    """
    check_whole(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG",)) as image:
                return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's readers raise many types of errors
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
    complete = len(head) == 24 and head[:8] == SIGNATURE and head[12:16] == b"IHDR"
    _require(complete, path, "is not a PNG")
    width, height = struct.unpack(">II", head[16:24])
    why = f"its header says {width} x {height} px; allowed are 1 to {MAX_PIXELS:,} pixels"
    _require(0 < width * height <= MAX_PIXELS, path, why)
    return width, height


def _chunks(path: Path, file: BinaryIO) -> Iterator[Chunk]:
    """The chunks in order, without their data; too many or too long texts are refused."""
    end, offset = path.stat().st_size, len(SIGNATURE)
    texts = text_bytes = 0
    for _ in range(MAX_CHUNKS):
        if offset == end:
            return
        file.seek(offset)
        head = file.read(8)
        _require(len(head) == 8, path, "is cut off")
        length, kind = struct.unpack(">I4s", head)
        _require(offset + 12 + length <= end, path, "is cut off")
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            texts, text_bytes = texts + 1, text_bytes + length
            few = texts <= MAX_TEXTS and text_bytes <= MAX_TEXT_BYTES
            _require(few, path, f"holds more than {MAX_TEXTS} texts or {MAX_TEXT_BYTES:,} bytes")
        yield Chunk(kind, offset + 8, length)
        offset += 12 + length
        if kind == b"IEND":
            _require(offset == end, path, "has bytes after its end")
            return
    _require(False, path, f"has more than {MAX_CHUNKS} chunks")


def _text_of(path: Path, file: BinaryIO, chunk: Chunk) -> bytes | None:
    """The text of an iTXt chunk with our key, else None.

    Its fields: key, compressed?, method, language, translated key, text.
    """
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
    return _decompress(path, parts[2]) if rest[0] else parts[2]


def _decompress(path: Path, packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, MAX_METADATA_BYTES + 1)
    except zlib.error:
        raise ValueError(f"{path}: its text {KEY!r} is damaged") from None
    _require(len(text) <= MAX_METADATA_BYTES, path, f"its text {KEY!r} is too long")
    return text


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _require(holds: bool, path: Path, what: str) -> None:
    if not holds:
        raise ValueError(f"{path}: {what}")
