import re

import pytest

from diffjax.data.emoji import drawings
from diffjax.data.emoji.phrases import (
    MAX_CAPTION_BYTES,
    captions,
    noun_phrase,
    with_article,
)


@pytest.fixture(scope="module")
def everything():
    return {
        (d.name, d.style): captions(d.name, d.style, is_flag=d.is_flag)
        for d in drawings.catalogue()
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("red_apple", "a red apple"),
        ("unicorn", "a unicorn"),
        ("ewe", "a ewe"),
        ("hourglass_done", "an hourglass that has run out"),
        ("x-ray", "an x-ray"),
        ("socks", "socks"),
        ("cactus", "a cactus"),
        ("popcorn", "popcorn"),
        ("face_with_medical_mask", "a face with a medical mask"),
        ("face_with_tears_of_joy", "a face with tears of joy"),
        ("beach_with_umbrella", "a beach with an umbrella"),
        ("map_of_Japan", "a map of Japan"),
        ("french_fries", "French fries"),
        ("Aries", "the Aries zodiac sign"),
        ("OK_button", "the OK button"),
        ("Japanese_discount_button", 'the Japanese "discount" button'),
        ("AB_button_(blood_type)", "the AB blood type button"),
        ("keycap_3", "a keycap with the number 3"),
        ("keycap_#", "a keycap with a hash sign"),
        ("eight-thirty", "a clock showing half past eight"),
        ("black_large_square", "a large black square"),
        ("family_man_woman_girl_girl", "a family of a man, a woman and two girls"),
        (
            "woman_firefighter_medium-dark_skin_tone",
            "a woman firefighter with medium-dark skin tone",
        ),
        ("man_bouncing_ball", "a man bouncing a ball"),
        ("man_dark_skin_tone_beard", "a man with dark skin tone and a beard"),
        ("person_in_tuxedo_light_skin_tone", "a person with light skin tone in a tuxedo"),
        (
            "kiss_woman_man_light_skin_tone_dark_skin_tone",
            "a woman and a man kissing, light and dark skin tones",
        ),
        ("men_wrestling_medium_skin_tone", "two men wrestling, both with medium skin tone"),
        ("dark_skin_tone", "a patch of dark skin tone"),
    ],
)
def test_names_become_english_phrases(name, expected):
    assert noun_phrase(name) == expected


def test_every_caption_is_short_and_all_but_the_last_name_the_style(everything):
    for (_, style), texts in everything.items():
        for text in texts:
            assert len(text.encode()) <= MAX_CAPTION_BYTES, text
        assert [style in text for text in texts] == [True] * 4 + [False], texts


def test_no_two_drawings_share_a_caption_that_names_a_style(everything):
    texts = [text for several in everything.values() for text in several[:-1]]
    assert len(set(texts)) == len(texts) == 4 * len(everything)


def test_a_caption_without_a_style_belongs_to_exactly_one_name(everything):
    names = {name for name, _ in everything}
    plain = {(name, several[-1]) for (name, _), several in everything.items()}
    assert len({text for _, text in plain}) == len(plain) == len(names)


def test_no_caption_contains_underscores_or_other_parts_of_raw_names(everything):
    bad = re.compile(
        r"[_&:\u2019]|  |\ba a\b|\bthe the\b|skin_"
        r"|\ba (?!euro|ewe|one-)[aeio]|\ban [bcdfgjklmnpqrstvwyz]",
        re.IGNORECASE,
    )
    texts = [
        text.removeprefix(f"{style} emoji:")
        for (_, style), some in everything.items()
        for text in some
    ]
    assert [text for text in texts if bad.search(text)] == []


def test_captions_do_not_change_between_calls():
    assert captions("red_apple", "twemoji") == (
        "a twemoji drawing of a red apple",
        "a red apple, twemoji style",
        "a red apple in the twemoji style",
        "twemoji emoji: red apple",
        "a red apple",
    )


@pytest.mark.parametrize(
    ("word", "phrase"),
    [("glass", "a glass"), ("bus", "a bus"), ("iris", "an iris"), ("dogs", "dogs"),
     ("bag of apples", "a bag of apples")],
)  # fmt: skip
def test_a_word_in_s_is_a_plural_unless_its_ending_says_otherwise(word, phrase):
    assert with_article(word) == phrase
