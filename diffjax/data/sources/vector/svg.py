"""Drawings in SVG files below a folder, rasterised when they are asked for; titles are captions."""

import hashlib
import html
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import resvg_py
from PIL import Image, ImageColor

from diffjax.data.broken import BrokenRecord
from diffjax.data.record import Record
from diffjax.data.sources.files import below, shown
from diffjax.data.sources.folder import words
from diffjax.images.colour import WHITE

MAX_SVG_BYTES = 8_000_000
MAX_TITLE_CHARACTERS = 300
_TITLE = re.compile(r"<(?:dc:)?title\b[^>]*>([^<]*)</(?:dc:)?title>", re.IGNORECASE)
# What would be read from the disk or the net is left out; drawings carry their pictures in them.
_OUTSIDE = re.compile(r"""(\b(?:xlink:)?href\s*=\s*)(["'])(?!#|data:)[^"']*\2""", re.IGNORECASE)
_EMPTY_TITLES = frozenset({"", "svg", "untitled", "no title", "drawing", "image"})


@dataclass(frozen=True)
class Drawings:
    """The SVG files `files` below `root`, as squares of `size_px` on a plain ground."""

    unchecked: ClassVar[bool] = True
    root: Path
    files: tuple[str, ...]
    size_px: int
    ground: str
    digest: str

    def __len__(self) -> int:
        """How many drawings there are."""
        return len(self.files)

    def __getitem__(self, index: int) -> Record:
        """The record at `index`; BrokenRecord if it cannot be drawn."""
        svg = self._svg(index)
        return {
            "name": self.name(index),
            "captions": _captions(svg, self.files[index]),
            "image": rasterise(svg, self.size_px, self.ground),
        }

    def __repr__(self) -> str:
        """As messages name it."""
        return f"svg:{shown(self.root)} ({len(self)} drawings)"

    def name(self, index: int) -> str:
        """The drawing's path below the folder."""
        return shown(self.files[index])

    def captions(self, index: int) -> tuple[str, ...]:
        """The title, or else the file's name, without drawing it."""
        return _captions(self._svg(index), self.files[index])

    def fingerprint(self) -> str:
        """A digest of the names and sizes of the files."""
        return self.digest

    def _svg(self, index: int) -> str:
        path = self.root / self.files[index]
        try:
            with open(path, "rb") as stream:
                data = stream.read(MAX_SVG_BYTES + 1)
        except OSError as error:
            raise BrokenRecord(error.strerror or str(error)) from None
        if len(data) > MAX_SVG_BYTES:
            raise BrokenRecord(f"more than {MAX_SVG_BYTES} bytes")
        return data.decode(errors="replace")


def open_svg(root: Path, size_px: int, ground: str = WHITE) -> Drawings:
    """The drawings below a folder.

    Raises:
      ValueError: no such folder, or no SVG file in it.
    """
    if not root.is_dir():
        raise ValueError(f"{shown(root)}: there is no such folder")
    found = [one for one in below(root) if one.path.lower().endswith(".svg")]
    if not found:
        raise ValueError(f"{shown(root)}: no .svg file below it")
    digest = hashlib.sha256(f"svg {size_px} {ground}\n".encode())
    for one in found:
        digest.update(os.fsencode(one.path) + b"\0%d\n" % one.size)
    return Drawings(root, tuple(one.path for one in found), size_px, ground, digest.hexdigest())


def rasterise(svg: str, size_px: int, ground: str = WHITE) -> bytes:
    """The drawing as a PNG of `size_px` a side: its longer side fills it, the ground the rest.

    Fonts of the system are not used, and nothing outside the text is read.

    Raises:
      BrokenRecord: it cannot be drawn.
    """
    inside = _OUTSIDE.sub(r"\1\2\2", svg)
    try:
        drawn = resvg_py.svg_to_bytes(
            svg_string=inside, width=size_px, height=size_px, skip_system_fonts=True, dpi=96
        )
        with Image.open(io.BytesIO(bytes(drawn)), formats=["PNG"]) as opened:
            rgba = opened.convert("RGBA")
    except BaseException as error:  # a panic of the renderer is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:100]
        raise BrokenRecord(f"cannot be drawn: {line}") from None
    square = Image.new("RGBA", (size_px, size_px), ImageColor.getcolor(ground, "RGBA"))
    place = ((size_px - rgba.width) // 2, (size_px - rgba.height) // 2)
    square.alpha_composite(rgba, place)
    png = io.BytesIO()
    square.convert("RGB").save(png, "PNG")
    return png.getvalue()


def _captions(svg: str, path: str) -> tuple[str, ...]:
    """The first title that says something, else the words of the file's name."""
    for title in _TITLE.findall(svg):
        text = " ".join(html.unescape(title).split())
        if text.lower() not in _EMPTY_TITLES and len(text) <= MAX_TITLE_CHARACTERS:
            return (text,)
    return (words(Path(path).stem),)
