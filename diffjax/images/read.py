"""Reads pictures of any source: files of people, records of data sets, uploads.

The header is read first: a wrong format or a too large size is refused before anything is decoded.
Pictures are rotated as their EXIF says and taken to sRGB by the profile that they carry. Of an
animation, the first frame is read.
"""

import contextlib
import io
import os
import stat
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps, JpegImagePlugin

from diffjax.images.colour import WHITE, flatten, opacity

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
MAX_PIXELS = 64_000_000
JPEG = b"\xff\xd8\xff"  # its first bytes


def read(
    path: str | os.PathLike, max_pixels: int = MAX_PIXELS, ground: str = WHITE
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture as RGB in [0, 255], over `ground` where it is transparent.

    Raises:
      ValueError: the file does not exist, is not a picture, is damaged, or has more than
        `max_pixels`, by its header. The message is one line that begins with the path.
    """
    return np.array(flatten(_decoded(Path(path), max_pixels), ground, "RGB"))


def read_bytes(data: bytes, max_pixels: int = MAX_PIXELS, ground: str = WHITE) -> Image.Image:
    """`read` of the bytes of a file, as a picture of Pillow's in RGB.

    Raises:
      ValueError: as `read`; the message begins with what is wrong.
    """
    return flatten(_decoded(data, max_pixels), ground, "RGB")


def read_mask(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Bool[np.ndarray, "h w"]:
    """True where the picture is lighter than mid grey; False where it is transparent.

    Raises:
      ValueError: as `read`.
    """
    return np.array(flatten(_decoded(Path(path), max_pixels), "black", "L")) > 127


def read_alpha(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Bool[np.ndarray, "h w"]:
    """True where the picture is more than half transparent.

    Raises:
      ValueError: as `read`; or the picture has no transparency.
    """
    image = _decoded(Path(path), max_pixels)
    if not image.has_transparency_data:
        raise ValueError(f"{path}: has no transparency")
    return opacity(image) < 128


def read_size(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) in pixels by the header, before any rotation by EXIF.

    Raises:
      ValueError: as `read`; damage after the header is not noticed.
    """
    with _header(Path(path), max_pixels) as image:
        return image.height, image.width


def _decoded(source: Path | bytes, max_pixels: int) -> Image.Image:
    """The decoded picture, rotated as its EXIF says."""
    with _header(source, max_pixels) as image:
        try:
            image.load()
        except MemoryError:
            raise
        except Exception as error:  # damage can raise any type of error
            line = " ".join(str(error).split())[:100]
            raise ValueError(f"{_called(source)}a damaged picture: {line}") from None
        with contextlib.suppress(Exception):  # damaged EXIF is ignored
            ImageOps.exif_transpose(image, in_place=True)
        return image


def _header(source: Path | bytes, max_pixels: int) -> Image.Image:
    """The opened picture; only its header has been read."""
    called = _called(source)
    if isinstance(source, Path):
        _require_file(source)
    try:
        image = _opened(source)
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        raise ValueError(f"{called}{_too_large(max_pixels)}") from None
    except PermissionError as error:
        raise ValueError(f"{called}{error.strerror}") from None
    except Exception:  # a forged header can raise any type of error
        raise ValueError(f"{called}{_seen(source)}not a picture of {', '.join(FORMATS)}") from None
    width, height = image.size
    if not 0 < width * height <= max_pixels:
        image.close()
        raise ValueError(f"{called}{width} x {height} px is {_too_large(max_pixels)}")
    return image


def _opened(source: Path | bytes) -> Image.Image:
    """The picture, of whatever size: the caller has a limit of its own."""
    if isinstance(source, bytes) and source.startswith(JPEG):
        # What `Image.open` does beside takes as long as to read the header, and its warnings must
        # be silenced, which threads cannot do at the same time.
        return JpegImagePlugin.jpeg_factory(io.BytesIO(source), "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        opened = io.BytesIO(source) if isinstance(source, bytes) else source
        return Image.open(opened, formats=FORMATS)


def _require_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # a path that contains \0 is a ValueError
        raise ValueError(f"{str(path)!r}: no such file") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise ValueError(f"{path}: {kind}; give a picture")


def _called(source: Path | bytes) -> str:
    return f"{source}: " if isinstance(source, Path) else ""


def _seen(source: Path | bytes) -> str:
    if isinstance(source, Path):
        return ""
    return f"{len(source)} bytes starting {source[:8]!r} are " if source else "0 bytes are "


def _too_large(max_pixels: int) -> str:
    return f"more than {max_pixels / 1e6:.4g} million pixels; shrink it first"
