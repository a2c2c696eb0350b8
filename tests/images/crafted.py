"""PNG files made by hand, chunk by chunk."""

import struct
import zlib

from diffjax.images import png


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width, height):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def crafted(path, *chunks, size=(1, 1)):
    """A PNG with these chunks between its header and its end, and without pixels."""
    path.write_bytes(png.SIGNATURE + header(*size) + b"".join(chunks) + chunk(b"IEND", b""))
    return path


def ours(text, packed=False):
    body = zlib.compress(text) if packed else text
    return chunk(b"iTXt", b"diffjax\0" + bytes([packed, 0]) + b"\0\0" + body)
