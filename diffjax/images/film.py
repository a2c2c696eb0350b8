"""Denoising as a moving picture: what each step of each stage takes the picture to be."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diffjax.core.files import write_whole

MS_PER_FRAME, MS_AT_THE_END = 80, 2000
ENDINGS = (".webp", ".gif")


def thinned(count: int, most: int) -> list[int]:
    """At most `most` of range(count), evenly spread, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def scaled(
    picture: UInt8[np.ndarray, "_ _ 3"], side_px: int
) -> UInt8[np.ndarray, "{side_px} {side_px} 3"]:
    """On another side: enlarged without smoothing, so that one sees the pixels; shrunk by area."""
    if picture.shape[0] == side_px:
        return picture
    smaller = picture.shape[0] < side_px
    how = Image.Resampling.NEAREST if smaller else Image.Resampling.BOX
    return np.asarray(Image.fromarray(picture).resize((side_px, side_px), how))


def paths(stem: Path) -> list[Path]:
    """The files of a film: STEM.webp and STEM.gif."""
    return [stem.with_name(stem.name + ending) for ending in ENDINGS]


def write(
    stem: Path,
    frames: Sequence[UInt8[np.ndarray, "h w 3"]],
    ms: int = MS_PER_FRAME,
    hold_ms: int = MS_AT_THE_END,
    said: dict[str, Any] | None = None,
) -> list[Path]:
    """STEM.webp and STEM.gif, each whole or not at all; they loop, and hold the last frame.

    said: metadata, which `read_metadata` gives back.

    Raises:
      ValueError: there are no frames.
      StorageError: the disk refuses.
    """
    if not frames:
        raise ValueError("a film of no frames")
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    text = b"" if said is None else json.dumps(said, ensure_ascii=False).encode()
    how: dict[str, Any] = dict(
        save_all=True,
        append_images=images[1:],
        duration=[*[ms] * (len(images) - 1), hold_ms],
        loop=0,
    )
    webp, gif = paths(stem)
    for path, own in (
        (webp, dict(format="WEBP", quality=90, xmp=text)),
        (gif, dict(format="GIF", comment=text)),
    ):
        file = io.BytesIO()
        images[0].save(file, **how | own)
        write_whole(path, file.getvalue())
    return [webp, gif]


def read_metadata(path: Path) -> dict[str, Any] | None:
    """What `write` was told of the film; None if nothing.

    Raises:
      ValueError: one line that begins with the path: it is no film of `write`, or a damaged one.
    """
    try:
        with Image.open(path, formats=("WEBP", "GIF")) as image:
            text = image.info.get("comment") or image.info.get("xmp") or b""
    except Exception:  # Pillow's readers share no base
        raise ValueError(f"{path}: is no film") from None
    try:
        found = json.loads(text) if text else None
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: says nothing that can be read") from None
    return found if isinstance(found, dict) else None
