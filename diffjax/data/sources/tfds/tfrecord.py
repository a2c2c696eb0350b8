"""TFRecord files by index, without TensorFlow: what older data sets are prepared as.

A file is a row of records: the length (uint64), a checksum of the length (uint32), the bytes, and
a checksum of the bytes (uint32), all little-endian; checksums are CRC-32C, masked. The lengths are
walked once, so a data set need not be converted.
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffjax.data.sources.parts import OpenFiles

_HEADER = struct.Struct("<QI")
_FOOTER_BYTES = 4
MAX_RECORD_BYTES = 1_000_000_000


class TFRecords:
    """The records at `places`, (start, size) [n 2] for each file, one file after the other."""

    def __init__(self, paths: Sequence[Path], places: Sequence[np.ndarray]):
        self._places = tuple(places)
        self._ends = np.cumsum([len(each) for each in places])
        self._files = OpenFiles(paths)

    def __len__(self) -> int:
        """How many records there are."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int, /) -> bytes:
        """The bytes of a record; RuntimeError if they are not all there."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} records")
        file = int(np.searchsorted(self._ends, index, side="right"))
        inside = index - (int(self._ends[file - 1]) if file else 0)
        try:
            return self._files.read(file, self._places[file][inside], MAX_RECORD_BYTES)
        except ValueError as error:
            raise RuntimeError(str(error)) from None


def places_of(path: Path) -> np.ndarray:
    """(start, size) of every record of a file, int64 [n 2].

    Raises:
      ValueError: not a TFRecord file, or compressed, or cut short; one line.
    """
    size = os.path.getsize(path)
    places: list[tuple[int, int]] = []
    with open(path, "rb") as stream:
        at = 0
        while at < size:
            header = os.pread(stream.fileno(), _HEADER.size, at)
            if len(header) < _HEADER.size:
                raise ValueError(f"{path}: ends within the header of record {len(places)}")
            length, check = _HEADER.unpack(header)
            if masked_crc(header[:8]) != check:
                raise ValueError(
                    f"{path}: not a plain TFRecord file, or damaged at record {len(places)}"
                )
            places.append((at + _HEADER.size, length))
            at += _HEADER.size + length + _FOOTER_BYTES
        if at != size:
            raise ValueError(f"{path}: ends within record {len(places) - 1}")
    return np.array(places, np.int64).reshape(-1, 2)


def masked_crc(data: bytes) -> int:
    """CRC-32C of a few bytes, rotated by 15 bits and shifted as the format wants."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE = tuple(map(_crc_of_byte, range(256)))
