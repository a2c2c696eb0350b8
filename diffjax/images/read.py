"""Reads pictures of any source as RGB on white.

The header is read first: a wrong format or a too large size is refused before anything is decoded.
Colours are taken as sRGB; an embedded colour profile is not applied. Of an animation, the first
frame is read.
"""

import os
import stat
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 64_000_000
FITS = ("crop", "pad")


def read(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "h w 3"]:
    """The picture as RGB in [0, 255], rotated as its EXIF says, on white where it is transparent.

    Grey, palette, CMYK and 16-bit pictures are converted.

    Raises:
      ValueError: the file does not exist, is not a picture, is damaged, or has more than
        `max_pixels`, by its header. The message is one line that begins with the path.
    """
    return _flatten(_opened(Path(path), max_pixels), "white", "RGB")


def read_mask(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Bool[np.ndarray, "h w"]:
    """True where the picture is lighter than mid grey; False where it is transparent.

    Raises:
      ValueError: as `read`.
    """
    return _flatten(_opened(Path(path), max_pixels), "black", "L") > 127


def read_size(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) in pixels by the header, before any rotation by EXIF.

    Raises:
      ValueError: as `read`; damage after the header is not noticed.
    """
    with _header(Path(path), max_pixels) as image:
        return image.height, image.width


def fit_square(
    picture: UInt8[np.ndarray, "h w 3"], size_px: int, fit: str = "crop"
) -> UInt8[np.ndarray, "s s 3"]:
    """The picture as a square: its middle ("crop"), or all of it with white borders ("pad").

    It is shrunk by averaging areas or enlarged bicubically. A picture of the right size stays as it
    is.
    """
    cut = _cut(picture, fit)
    height, width = _inside(cut.shape, size_px)
    if cut.shape[:2] != (height, width):
        filter_ = _filter(cut.shape, size_px)
        cut = np.array(Image.fromarray(cut).resize((width, height), filter_))
    top, left = (size_px - height) // 2, (size_px - width) // 2
    out = np.full((size_px, size_px, 3), 255, np.uint8)
    out[top : top + height, left : left + width] = cut
    return out


def fit_square_mask(
    mask: Bool[np.ndarray, "h w"], size_px: int, fit: str = "crop"
) -> Bool[np.ndarray, "s s"]:
    """True where `fit_square` of a picture of this size depends on a masked pixel.

    The borders of "pad" are False.
    """
    cut = _cut(mask, fit)
    height, width = _inside(cut.shape, size_px)
    if cut.shape != (height, width):
        shares = Image.fromarray(np.ascontiguousarray(cut).astype(np.float32))
        shares = shares.resize((width, height), _filter(cut.shape, size_px))
        cut = np.abs(np.array(shares)) > 1e-4  # a smaller share changes no byte
    top, left = (size_px - height) // 2, (size_px - width) // 2
    out = np.zeros((size_px, size_px), bool)
    out[top : top + height, left : left + width] = cut
    return out


def _cut(pixels: np.ndarray, fit: str) -> np.ndarray:
    if fit not in FITS:
        raise ValueError(f"fit={fit!r}: allowed are {', '.join(FITS)}")
    if fit == "pad":
        return pixels
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _inside(shape: tuple[int, ...], size_px: int) -> tuple[int, int]:
    """(height, width) of the largest picture of this aspect ratio within a square."""
    height, width = (max(1, round(side * size_px / max(shape[:2]))) for side in shape[:2])
    return height, width


def _filter(shape: tuple[int, ...], size_px: int) -> Image.Resampling:
    # the mean of an area does not depend on pixels outside, so a mask need not grow
    return Image.Resampling.BOX if max(shape[:2]) > size_px else Image.Resampling.BICUBIC


def _header(path: Path, max_pixels: int) -> Image.Image:
    """The opened picture; only its header has been read."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # a path that contains \0 is a ValueError
        raise ValueError(f"{str(path)!r}: no such file") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise ValueError(f"{path}: {kind}; give a picture")
    try:
        with warnings.catch_warnings():
            # our own limit is checked below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError:
        raise ValueError(f"{path}: {_too_large(max_pixels)}") from None
    except PermissionError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except Exception:  # a forged header can raise any type of error
        raise ValueError(f"{path}: not a picture of {', '.join(FORMATS)}") from None
    width, height = image.size
    if not 0 < width * height <= max_pixels:
        image.close()
        raise ValueError(f"{path}: {width} x {height} px is {_too_large(max_pixels)}")
    return image


def _too_large(max_pixels: int) -> str:
    return f"more than {max_pixels / 1e6:.4g} million pixels; shrink it first"


def _opened(path: Path, max_pixels: int) -> Image.Image:
    """The decoded picture, rotated as its EXIF says."""
    with _header(path, max_pixels) as image:
        try:
            image.load()
        except Exception as error:  # damage can raise any type of error too
            line = " ".join(str(error).split())[:100]
            raise ValueError(f"{path}: a damaged picture: {line}") from None
        try:
            return ImageOps.exif_transpose(image)
        except Exception:  # damaged EXIF is ignored
            return image.copy()


def _flatten(image: Image.Image, ground: str, mode: str) -> np.ndarray:
    """The pixels in "RGB" or "L", over a background of one colour."""
    if image.mode.startswith("I"):  # 16 bits; a plain conversion would clip them at 255
        values = np.asarray(image).astype(np.int32)
        grey = np.clip((values + 128) // 257, 0, 255).astype(np.uint8)
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255 if ground == "white" else 0
        return np.array(Image.fromarray(grey).convert(mode))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, ground), rgba)
    return np.array(image.convert(mode))
