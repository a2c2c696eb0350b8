"""Records: the embeddings of one caption as bytes, in 16 bits or in int8 with a scale per token.

A record holds, little-endian: the crc32 of all that follows, the length of the caption in bytes,
the number of tokens (uint32 each), the caption in UTF-8, for int8 the scales (float32 [l]), and the
data [l d].
"""

import hashlib
import struct
import zlib
from collections.abc import Sequence

import ml_dtypes
import numpy as np
from jaxtyping import Float, Int8, Shaped

from diffjax.core.errors import EXIT_STORAGE, Ending

STORAGES = ("bfloat16", "int8")  # of embeddings of text
FLOAT16 = "float16"  # of what autoencoders make of pictures
_LENGTHS = struct.Struct("<II")
_CRC = struct.Struct("<I")


class Damaged(Ending, ValueError):
    """Bytes differ from those that were written. Exit code 5."""

    exit_code = EXIT_STORAGE


def quantise(
    row: Float[np.ndarray, "l d"],
) -> tuple[Int8[np.ndarray, "l d"], Float[np.ndarray, "l"]]:
    """q = round(127 x / max|x|) and the scale max|x| / 127 (1 where max|x| = 0), token by token.

    Then |scale q - x| <= scale / 2: an error of at most 1 / 254 of the token's largest component.
    """
    row = row.astype(np.float32)
    largest = np.abs(row).max(axis=1, initial=0)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    # A denormal scale may be rounded down, and the quotient is then above 127.
    return np.clip(np.rint(row / scale[:, None]), -127, 127).astype(np.int8), scale


def pack(caption: str, row: Float[np.ndarray, "l d"], storage: str) -> bytes:
    """The record of a caption and its embeddings; `storage` is one of STORAGES, or FLOAT16."""
    name = caption.encode()
    if storage == "int8":
        data, scale = quantise(row)
        payload = scale.tobytes() + data.tobytes()
    else:
        payload = row.astype(_type_of(storage)).tobytes()
    return add_checksum(_LENGTHS.pack(len(name), len(row)) + name + payload)


def unpack(record: bytes, width: int, storage: str) -> tuple[str, Shaped[np.ndarray, "l d"]]:
    """(caption, its embeddings in bfloat16, or in float16 if stored so) of a record.

    Raises:
      Damaged: the record differs from what was written.
    """
    content = strip_checksum(record)
    if len(content) < _LENGTHS.size:
        raise Damaged("too short")
    name_size, length = _LENGTHS.unpack_from(content)
    start = _LENGTHS.size + name_size
    token_size = width + 4 if storage == "int8" else 2 * width
    if len(content) != start + length * token_size:
        raise Damaged("its length is not the one that it states")
    caption = content[_LENGTHS.size : start].decode()
    if storage == "int8":
        scale = np.frombuffer(content, np.float32, length, start)
        data = np.frombuffer(content, np.int8, -1, start + 4 * length).reshape(length, width)
        return caption, (data * scale[:, None]).astype(ml_dtypes.bfloat16)
    data = np.frombuffer(content, _type_of(storage), length * width, start)
    return caption, data.reshape(length, width).copy()


def _type_of(storage: str) -> np.dtype:
    return np.dtype(np.float16 if storage == FLOAT16 else ml_dtypes.bfloat16)


def add_checksum(content: bytes) -> bytes:
    """The crc32 of the content, then the content."""
    return _CRC.pack(zlib.crc32(content)) + content


def strip_checksum(record: bytes) -> bytes:
    """The content of a record, after checking its crc32.

    Raises:
      Damaged: the crc32 differs.
    """
    content = record[_CRC.size :]
    if len(record) < _CRC.size or _CRC.unpack_from(record)[0] != zlib.crc32(content):
        raise Damaged("checksum differs")
    return content


def caption_digests(captions: Sequence[str]) -> Shaped[np.ndarray, "n"]:
    """128-bit BLAKE2b digests of the captions, as S16, which sorts and compares like bytes."""
    raw = b"".join(hashlib.blake2b(c.encode(), digest_size=16).digest() for c in captions)
    return np.frombuffer(raw, "S16")
