import io

import numpy as np
import pytest
import resvg_py
from PIL import Image

from diffjax.data.sources.vector import iconify

ICONS: iconify.IconSet = {
    "icons": {
        "red-apple": {"body": '<path fill="red" d="M0 0h32v32H0z"/>'},
        "thumbs-up": {"body": '<path fill="lime" d="M0 0h16v32H0z"/>'},
        "thumbs-up-dark": {"body": '<path fill="blue" d="M0 0h32v32H0z"/>'},
        "wide": {"body": '<path d="M0 0h64v32H0z"/>', "width": 64},
        "lonely": {"body": ""},
    },
    "width": 32,
    "height": 32,
}
CHARS = {"1f34e": "red-apple", "1f44d": "thumbs-up", "1f44d-1f3ff": "thumbs-up-dark"}
NAMED = {
    "red_apple": (0x1F34E,),
    "thumbs_up": (0x1F44D, 0xFE0F),
    "thumbs_up_dark_skin_tone": (0x1F44D, 0x1F3FF),
    "airplane": (0x2708, 0xFE0F),
}


def test_drawings_are_found_by_code_points_whatever_variation_selectors_say():
    assert list(iconify.svgs_by_name(ICONS, CHARS, NAMED)) == ["red_apple", "thumbs_up"]


def test_skin_tones_are_there_only_if_asked_for():
    svgs = iconify.svgs_by_name(ICONS, CHARS, NAMED, skin_tones=True)
    assert "thumbs_up_dark_skin_tone" in svgs


@pytest.mark.parametrize(
    ("name", "tone"),
    [
        ("skier-dark", True),
        ("person-medium-light-skin-tone", True),
        ("breast-feeding-tone1", True),
        ("artist-medium-dark", True),
        ("darkness", False),
        ("traffic-light", True),  # by its name it cannot be told; by its code points it can
        ("keycap-5", False),
    ],
)
def test_a_name_that_ends_in_a_tone_asks_for_one(name, tone):
    assert iconify.names_a_skin_tone(name) is tone


def test_a_body_fills_the_sets_box():
    png = resvg_py.svg_to_bytes(svg_string=iconify.svg_of(ICONS, "thumbs-up"), width=8, height=8)
    pixels = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))
    assert (pixels[:, :4] == (0, 255, 0, 255)).all()
    assert (pixels[:, 4:, 3] == 0).all()


def test_an_icon_has_a_box_of_its_own_where_it_says_so():
    assert 'viewBox="0 0 64 32"' in iconify.svg_of(ICONS, "wide")


def test_an_unknown_icon_is_an_error_that_names_it():
    with pytest.raises(KeyError, match="pear"):
        iconify.svg_of(ICONS, "pear")
