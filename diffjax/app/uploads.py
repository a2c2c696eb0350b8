"""Reads the pictures that visitors upload, after checks of what the request says of them."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from diffjax.app.values import Refused, require
from diffjax.images import read

MAX_PIXELS = 16_000_000
MAX_LAYERS = 8


@dataclasses.dataclass(frozen=True)
class Painting:
    """A picture, and a mask that is True where it is to be painted anew."""

    picture: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]


def picture(name: str, value: object, folder: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Reads an uploaded picture. folder: where uploads are kept.

    Raises:
      Refused: there is none; or it is from another folder, too large or not a picture.
    """
    require(value is not None, name, "upload one, or take the last one")
    try:
        return read.read(uploaded(name, value, folder), MAX_PIXELS)
    except Refused:
        raise
    except ValueError as error:  # it begins with a path, which we do not show
        raise Refused(f"{name}: {str(error).partition(': ')[2]}") from None


def painting(value: object, folder: Path) -> Painting:
    """Reads what the page's editor sends: the files of a background and of layers painted over it.

    A pixel is painted anew if any layer is at least half opaque there. `folder` is where uploads
    are kept. The headers of all files are checked before any file is decoded.

    Raises:
      Refused: there is no picture, nothing is painted, or a file is from another folder, too large
        or not a picture.
    """
    layers = (value.get("layers") or []) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(layers, list):
        raise Refused("picture: want what the page's editor sends")
    require(value.get("background") is not None, "picture", "upload one, or take the last one")
    require(len(layers) <= MAX_LAYERS, "picture", f"has more than {MAX_LAYERS} layers")
    paths = [uploaded("picture", file, folder) for file in (value["background"], *layers)]
    try:
        sizes = [read.read_size(path, MAX_PIXELS) for path in paths]
        height, width = sizes[0]
        same = all(size == sizes[0] for size in sizes)
        require(same, "picture", f"is {width} x {height} px, and what is painted is not")
        picture = read.read(paths[0], MAX_PIXELS)
        mask = np.zeros((height, width), bool)
        for path in paths[1:]:
            mask |= _covered(path, (height, width))
    except Refused:
        raise
    except ValueError as error:  # of `images.read`: it begins with a path, which we do not show
        raise Refused(f"picture: {str(error).partition(': ')[2]}") from None
    require(picture.shape[:2] == mask.shape, "picture", "is turned by its EXIF; upload it again")
    require(bool(mask.any()), "picture", "paint over what is to be drawn anew")
    return Painting(picture, mask)


def _covered(path: Path, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Where a layer is at least half opaque; its header has been checked before."""
    try:
        with Image.open(path, formats=("PNG", "WEBP")) as layer:
            alpha = np.asarray(layer.convert("RGBA"))[..., 3]
    except Exception:  # Pillow's readers have no common base class of errors
        raise Refused("picture: a damaged layer; reload the page") from None
    require(alpha.shape == shape, "picture", "has a layer of another size")
    return alpha > 127


def uploaded(name: str, file: object, folder: Path) -> Path:
    """The path of an uploaded file, which must lie in `folder`."""
    given = file.get("path") if isinstance(file, dict) else None
    require(isinstance(given, str) and "\0" not in given, name, "want an uploaded file")
    path = Path(str(given)).resolve()
    inside = path.is_relative_to(folder.resolve()) and path.is_file()
    require(inside, name, "is no longer here; upload it again")
    return path
