from collections import Counter

import numpy as np
import pytest

from diffjax.data import transforms
from diffjax.data.emoji import drawings


@pytest.fixture(scope="module")
def apple():
    return next(d for d in drawings.catalogue() if d.name == "red_apple")


def test_3953_names_have_drawings_and_most_of_them_two():
    styles = Counter(drawing.style for drawing in drawings.catalogue())
    assert styles == {"openmoji": 3913, "twemoji": 3928}
    assert len({drawing.name for drawing in drawings.catalogue()}) == 3953


def test_names_whose_picture_does_not_show_everything_are_left_out():
    pictures = {(drawing.name, drawing.style) for drawing in drawings.catalogue()}
    for style, name in [
        ("twemoji", "family_man_woman_boy"),
        ("openmoji", "people_wrestling_light_skin_tone_dark_skin_tone"),
    ]:
        other = {"openmoji": "twemoji", "twemoji": "openmoji"}[style]
        assert (name, style) not in pictures
        assert (name, other) in pictures


def test_files_match_with_and_without_the_variation_selector():
    codes = {(d.name, d.style): d.code for d in drawings.catalogue()}
    assert codes["keycap_3", "openmoji"] == codes["keycap_3", "twemoji"] == "0033-FE0F-20E3"
    assert codes["red_heart", "twemoji"] == "2764-FE0F"


def test_flags_of_places_are_distinguished_from_other_flags():
    flags = {d.name for d in drawings.catalogue() if d.is_flag}
    assert {"Japan", "Scotland", "Curaçao", "United_Nations"} <= flags
    assert not {"pirate_flag", "rainbow_flag", "keycap_3", "red_apple"} & flags


@pytest.mark.parametrize("size_px", [16, 64, 100])
def test_a_drawing_is_rasterised_at_its_size_on_white(apple, size_px):
    image = transforms.decode(drawings.rasterise(apple, size_px))
    assert image.shape == (size_px, size_px, 3)
    assert (image[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    red, green, _ = np.moveaxis(image[size_px // 2, size_px // 2].astype(int), -1, 0)
    assert red > green + 50


def test_a_drawing_that_is_not_square_is_centred_in_a_square():
    (melon,) = [d for d in drawings.catalogue() if (d.name, d.style) == ("watermelon", "twemoji")]
    image = transforms.decode(drawings.rasterise(melon, 64))
    assert image.shape == (64, 64, 3)
    rows = np.flatnonzero((image < 250).any(axis=(1, 2)))
    assert 5 < rows[0] < 20
    assert abs(rows[0] - (63 - rows[-1])) <= 1


def test_rasterising_twice_gives_the_same_bytes(apple):
    assert drawings.rasterise(apple, 64) == drawings.rasterise(apple, 64)
