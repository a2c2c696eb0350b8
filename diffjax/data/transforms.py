"""Decodes, resizes and crops the picture of a record, and chooses one of its captions.

All random draws come from the generator that is passed.
"""

import io
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageColor

from diffjax.data.broken import BrokenRecord
from diffjax.images import read
from diffjax.images.colour import WHITE

ASPECTS = ("centre", "random", "pad")
MIN_SIDE_PX = 4  # thinner pictures show nothing
# A caption with one of these words would be wrong of the mirrored picture.
_SIDE = re.compile(
    r"\b(left|right|east|west|clockwise|mirror|text|letter|word|sign|says?|reads?)", re.IGNORECASE
)


def decode(data: bytes, ground: str = WHITE) -> UInt8[np.ndarray, "h w 3"]:
    """`load`, as an array in [0, 255]."""
    return np.array(load(data, ground))


def load(data: bytes, ground: str = WHITE) -> Image.Image:
    """The bytes of a picture's file in RGB; what is transparent shows the ground.

    Raises:
      BrokenRecord: what `images.read` refuses (another format, damage, too many pixels by the
        header), or a side of less than MIN_SIDE_PX.
    """
    try:
        image = read.read_bytes(data, ground=ground)
    except ValueError as error:
        raise BrokenRecord(str(error)) from None
    if min(image.size) < MIN_SIDE_PX:
        raise BrokenRecord(f"{image.width} x {image.height} px: thinner than {MIN_SIDE_PX} px")
    return image


def encode_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Encodes pixels as PNG bytes, from which `decode` gives the same pixels."""
    return _encoded(image, "PNG")


def encode_quick(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """The same, as PNG or BMP.

    A photograph of 64 px is read from BMP in a third of the time, and has less than twice as many
    bytes. A drawing of plain colours stays PNG, which packs it to far less than a third.
    """
    packed, plain = _encoded(image, "PNG"), _encoded(image, "BMP")
    return packed if 3 * len(packed) < len(plain) else plain


def centre_square(image: UInt8[np.ndarray, "h w 3"], size_px: int) -> UInt8[np.ndarray, "s s 3"]:
    """The centre square, antialiased to `size_px` a side; untouched if it has that size already."""
    return square(Image.fromarray(image), size_px, "centre")


def square(
    image: Image.Image,
    size_px: int,
    aspect: str,
    *,
    ground: str = WHITE,
    rng: np.random.Generator | None = None,
) -> UInt8[np.ndarray, "s s 3"]:
    """A square of `size_px` a side, antialiased; untouched if the picture is one already.

    aspect: "centre" cuts the ends of the longer side off; "random" cuts a square at any place along
    it, the centre without `rng`; "pad" keeps all of it and fills up with `ground`.
    """
    if image.size == (size_px, size_px):
        return np.array(image)
    if aspect == "pad":
        return _padded(image, size_px, ground)
    side_px = min(image.size)
    over = image.height - side_px, image.width - side_px
    if aspect == "random" and rng is not None:
        top, left = (int(rng.integers(more + 1)) for more in over)
    else:
        top, left = (more // 2 for more in over)
    if any(over):  # cut first: the filter must not see what is cut off
        image = image.crop((left, top, left + side_px, top + side_px))
    return np.array(image.resize((size_px, size_px), Image.Resampling.BICUBIC))


def random_square(
    image: Image.Image, size_px: int, min_share: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "s s 3"]:
    """A random square of the picture at any place, antialiased to `size_px` a side.

    Its side is a share of the shorter one's, whose inverse is uniform from 1 to 1 / min_share, as
    where a picture is enlarged first (Dhariwal & Nichol 2021, of their classifiers: 0.8).
    """
    side = min(image.size) / rng.uniform(1.0, 1.0 / min_share)
    left, top = (rng.uniform(0.0, more - side) for more in image.size)
    box = (left, top, min(left + side, image.width), min(top + side, image.height))
    return np.array(image.resize((size_px, size_px), Image.Resampling.BICUBIC, box=box))


def mirrored(
    image: UInt8[np.ndarray, "h w 3"], captions: Sequence[str], rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Half of the pictures mirrored, left to right; none whose captions name a side or a text.

    Chance is drawn for every picture, so that a caption changes no other example.
    """
    turned = rng.random() < 0.5
    return image[:, ::-1] if turned and not any(map(names_a_side, captions)) else image


def names_a_side(caption: str) -> bool:
    """Whether a mirrored picture would belie the caption: left and right, letters and texts."""
    return _SIDE.search(caption) is not None


def random_crop(
    image: UInt8[np.ndarray, "h w 3"], crop_px: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "s s 3"]:
    """A random square of `crop_px` a side; every place is equally likely.

    Raises:
      ValueError: the image is smaller than the crop.
    """
    height_px, width_px = image.shape[:2]
    if not 0 < crop_px <= min(height_px, width_px):
        raise ValueError(f"crop_px={crop_px} must be 1 to {min(height_px, width_px)}, the image's")
    top = rng.integers(height_px - crop_px + 1)
    left = rng.integers(width_px - crop_px + 1)
    return image[top : top + crop_px, left : left + crop_px]


def choose_caption(captions: Sequence[str], rng: np.random.Generator) -> str:
    """One of the captions, all equally likely; "" if there are none, without using `rng`."""
    return captions[int(rng.integers(len(captions)))] if captions else ""


def _encoded(image: UInt8[np.ndarray, "h w 3"], kind: str) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, kind)
    return data.getvalue()


def _padded(image: Image.Image, size_px: int, ground: str) -> UInt8[np.ndarray, "s s 3"]:
    width_px, height_px = (max(1, round(side * size_px / max(image.size))) for side in image.size)
    small = image.resize((width_px, height_px), Image.Resampling.BICUBIC)
    whole = np.empty((size_px, size_px, 3), np.uint8)
    whole[:] = ImageColor.getcolor(ground, "RGB")
    top, left = (size_px - height_px) // 2, (size_px - width_px) // 2
    whole[top : top + height_px, left : left + width_px] = np.array(small)
    return whole
