"""Films as WebP and GIF files, which show how a picture appears step by step."""

import functools
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diffjax.core.files import write_whole
from diffjax.core.json_types import JsonObject

MS_PER_FRAME, MS_AT_THE_END = 80, 2000
ENDINGS = (".webp", ".gif")


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` indices of range(count), evenly spaced, with the first and the last."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def resize_square(
    picture: UInt8[np.ndarray, "_ _ 3"], side_px: int
) -> UInt8[np.ndarray, "{side_px} {side_px} 3"]:
    """Enlarge without smoothing, so that the pixels are seen, or shrink by averaging areas."""
    if picture.shape[0] == side_px:
        return picture
    smaller = picture.shape[0] < side_px
    method = Image.Resampling.NEAREST if smaller else Image.Resampling.BOX
    return np.asarray(Image.fromarray(picture).resize((side_px, side_px), method))


def film_paths(stem: Path) -> list[Path]:
    """The files of a film: STEM.webp and STEM.gif."""
    return [stem.with_name(stem.name + ending) for ending in ENDINGS]


def write(
    stem: Path,
    frames: Sequence[UInt8[np.ndarray, "h w 3"]],
    ms: int = MS_PER_FRAME,
    hold_ms: int = MS_AT_THE_END,
    metadata: Mapping[str, object] | None = None,
    endings: Sequence[str] = ENDINGS,
) -> list[Path]:
    """Write STEM.webp and STEM.gif, each completely or not at all; returns their paths.

    The films loop. ms: how long a frame is shown; hold_ms: how long the last one is. metadata: what
    `read_metadata` will return. endings: of the files to write.

    Raises:
      ValueError: there are no frames.
      StorageError: the disk is full or fails.
    """
    if not frames:
        raise ValueError("a film needs at least one frame, and there are no frames")
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    text = b"" if metadata is None else json.dumps(metadata, ensure_ascii=False).encode()
    durations = [*[ms] * (len(images) - 1), hold_ms]
    save = functools.partial(
        images[0].save, save_all=True, append_images=images[1:], duration=durations, loop=0
    )
    files = {stem.with_name(stem.name + ending): io.BytesIO() for ending in endings}
    for path, file in files.items():
        if path.suffix == ".webp":
            save(file, "WEBP", quality=90, xmp=text)
        else:
            save(file, "GIF", comment=text)
    for path, file in files.items():
        write_whole(path, file.getvalue())
    return list(files)


def read_metadata(path: Path) -> JsonObject | None:
    """The metadata that `write` was given; None if there were none.

    Raises:
      ValueError: it is not a WebP or GIF file, or its metadata are damaged. The message is one line
        that begins with the path.
    """
    try:
        with Image.open(path, formats=("WEBP", "GIF")) as image:
            text = image.info.get("comment") or image.info.get("xmp") or b""
    except Exception:  # Pillow's readers raise many types of errors
        raise ValueError(f"{path}: is not a film") from None
    try:
        found = json.loads(text) if text else None
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: its metadata cannot be read") from None
    return found if isinstance(found, dict) else None
