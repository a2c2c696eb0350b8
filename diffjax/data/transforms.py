"""Decodes, resizes and crops the picture of a record, and chooses one of its captions.

All random draws come from the generator that is passed.
"""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diffjax.data.broken import BrokenPicture

FORMATS = ("PNG", "JPEG", "WEBP")


def decode(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes PNG, JPEG or WEBP bytes to RGB in [0, 255], with white behind transparent pixels.

    Raises:
      BrokenPicture: the bytes have another format or are damaged, or the header claims more pixels
        than Pillow decodes (twice its MAX_IMAGE_PIXELS).
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return np.array(_on_white(image))
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        raise BrokenPicture(f"a picture too large to decode: {error}") from None
    except Exception as error:  # Pillow's readers raise many types of errors
        raise BrokenPicture(
            f"{len(data)} bytes starting {data[:8]!r} are not a complete image of "
            f"{', '.join(FORMATS)}"
        ) from error


def encode_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Encodes pixels as PNG bytes, from which `decode` gives the same pixels."""
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    return png.getvalue()


def centre_square(image: UInt8[np.ndarray, "h w 3"], size_px: int) -> UInt8[np.ndarray, "s s 3"]:
    """The centre square, resized to `size_px` with antialiasing; unchanged if it has that size."""
    height_px, width_px = image.shape[:2]
    if height_px == width_px == size_px:
        return image
    side_px = min(height_px, width_px)
    top, left = (height_px - side_px) // 2, (width_px - side_px) // 2
    square = Image.fromarray(image[top : top + side_px, left : left + side_px])
    return np.array(square.resize((size_px, size_px), Image.Resampling.BICUBIC))


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


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
