"""Reads the drawings of an iconify set (`@iconify-json/NAME` on npm) as SVG texts by emoji name.

`icons.json` holds the drawings as bodies without their
svg element, `chars.json` says which code points each of them stands for. Nothing is fetched here:
`npm pack @iconify-json/noto` brings a set, `package/` of its archive holds the files.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NotRequired, TypedDict, cast

from diffjax.core.files import parse_json_object
from diffjax.data.record import Record
from diffjax.data.sources.files import shown
from diffjax.data.sources.folder import words
from diffjax.data.sources.vector.svg import rasterise
from diffjax.images.colour import WHITE

_TONES = range(0x1F3FB, 0x1F400)
_VARIATION_SELECTOR = 0xFE0F
_TONE_IN_NAME = re.compile(r"-(?:(?:medium-)?(?:light|dark)|medium|tone[1-5]|skin-tone)(?:-|$)")


class Icon(TypedDict):
    """One drawing; it has a box of its own if that differs from the box of the set."""

    body: str
    left: NotRequired[float]
    top: NotRequired[float]
    width: NotRequired[float]
    height: NotRequired[float]
    hidden: NotRequired[bool]


class IconSet(TypedDict):
    """The part of `icons.json` that is read; mirrored and rotated aliases are not."""

    icons: dict[str, Icon]
    width: NotRequired[float]
    height: NotRequired[float]


def svg_of(icons: IconSet, name: str) -> str:
    """The SVG document of the icon `name`: its body in its box, of 16 units if none is given.

    Raises:
      KeyError: the set has no such icon.
    """
    icon = icons["icons"][name]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="{box}">{icon["body"]}</svg>'
    )


def codes_of(key: str) -> tuple[int, ...]:
    """The code points of a key of `chars.json`, "1f468-200d-1f9b2", without U+FE0F."""
    return plain(int(code, 16) for code in key.split("-"))


def plain(codes: Iterable[int]) -> tuple[int, ...]:
    """The code points without U+FE0F, since only some sets have it."""
    return tuple(code for code in codes if code != _VARIATION_SELECTOR)


def has_skin_tone(codes: Sequence[int]) -> bool:
    """Whether the code points contain one of the five skin tones."""
    return any(code in _TONES for code in codes)


def names_a_skin_tone(icon_name: str) -> bool:
    """Whether the name of an icon contains a skin tone, such as "skier-dark".

    `chars.json` leaves some of these out.
    """
    return _TONE_IN_NAME.search(icon_name) is not None


def svgs_by_name(
    icons: IconSet,
    chars: Mapping[str, str],
    named_codes: Mapping[str, tuple[int, ...]],
    *,
    skin_tones: bool = False,
) -> dict[str, str]:
    """SVG documents by the names of `named_codes` (name -> code points), in its order.

    Drawings whose code points have no name there are left out, because captions should agree with
    those of other styles. Skin tones are left out unless they are asked for.
    """
    icon_of = {codes_of(key): icon for key, icon in chars.items()}
    svgs = {}
    for name, codes in named_codes.items():
        icon = icon_of.get(plain(codes))
        if icon is None or icon not in icons["icons"]:
            continue
        if skin_tones or not has_skin_tone(codes):
            svgs[name] = svg_of(icons, icon)
    return svgs


@dataclass(frozen=True)
class Icons:
    """The drawings of a set as squares of `size_px`, captioned by the words of their names."""

    unchecked: ClassVar[bool] = True
    icons: IconSet
    names: tuple[str, ...]
    size_px: int
    ground: str
    digest: str

    def __len__(self) -> int:
        """How many drawings there are."""
        return len(self.names)

    def __getitem__(self, index: int) -> Record:
        """The record at `index`; BrokenRecord if it cannot be drawn."""
        svg = svg_of(self.icons, self.names[index])
        return {
            "name": self.names[index],
            "captions": self.captions(index),
            "image": rasterise(svg, self.size_px, self.ground),
        }

    def __repr__(self) -> str:
        """As messages name it."""
        return f"an icon set of {len(self)} drawings"

    def name(self, index: int) -> str:
        """The icon's name."""
        return self.names[index]

    def captions(self, index: int) -> tuple[str, ...]:
        """The words of the icon's name, without drawing it."""
        return (words(self.names[index]),)

    def fingerprint(self) -> str:
        """A digest of all drawings."""
        return self.digest


def open_icons(path: Path, size_px: int, ground: str = WHITE) -> Icons:
    """The icons of `icons.json`, or of the folder that holds it; hidden ones are left out.

    Raises:
      ValueError: there is no such file, or it is no icon set.
    """
    file = path / "icons.json" if path.is_dir() else path
    try:
        data = file.read_bytes()
        found = parse_json_object(data)
        icons = cast("IconSet", found)
        names = tuple(
            name
            for name, icon in icons["icons"].items()
            if isinstance(icon["body"], str) and not icon.get("hidden")
        )
    except OSError as error:
        raise ValueError(f"{shown(file)}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{shown(file)}: not an icon set of iconify: {error}") from None
    if not names:
        raise ValueError(f"{shown(file)}: has no icon")
    digest = hashlib.sha256(f"iconify {size_px} {ground}\n".encode() + data).hexdigest()
    return Icons(icons, names, size_px, ground, digest)
