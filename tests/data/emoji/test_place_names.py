import pytest

from diffjax.data.emoji import drawings, place_names
from diffjax.data.emoji.phrases import noun_phrase


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Japan", "the flag of Japan"),
        ("United_States", "the flag of the United States"),
        ("Netherlands", "the flag of the Netherlands"),
        ("Antigua_&_Barbuda", "the flag of Antigua and Barbuda"),
        ("Hong_Kong_SAR_China", "the flag of Hong Kong"),
    ],
)
def test_a_flag_is_captioned_with_its_place(name, expected):
    assert noun_phrase(name, is_flag=True) == expected


def test_every_special_place_is_the_name_of_a_flag():
    assert set(place_names._WORDS) <= {d.name for d in drawings.catalogue() if d.is_flag}
