"""Fits pictures and masks of any shape into squares."""

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

FITS = ("crop", "pad")


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
