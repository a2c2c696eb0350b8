"""Reads the drawings of an iconify set (`@iconify-json/NAME` on npm) as SVG texts by emoji name.

A set has two files: `icons.json` holds the bodies of the drawings without their svg element, and
`chars.json` says which code points each drawing stands for. Nothing is downloaded here: `npm pack
@iconify-json/noto` downloads a set, whose files are in `package/` of the archive.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NotRequired, TypedDict

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
