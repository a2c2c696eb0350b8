from collections import Counter
from pathlib import Path

import pytest

from diffjax.data.emoji import drawings
from diffjax.data.emoji.drawings import Drawing
from diffjax.data.emoji.splits import (
    SPLITS,
    assign_splits,
    hash_bucket,
    kin_of,
    profession_and_tone,
    split_of,
)


@pytest.fixture(scope="module")
def assigned():
    return assign_splits(drawings.catalogue())


def names(split):
    return {drawing.name for drawing in split}


def test_splits_are_disjoint_and_cover_everything(assigned):
    pictures = [(d.name, d.style) for split in assigned.values() for d in split]
    assert len(set(pictures)) == len(pictures) == len(drawings.catalogue())
    assert tuple(assigned) == SPLITS


def test_both_drawings_of_a_name_are_in_the_same_split(assigned):
    whole = [names(assigned[name]) for name in SPLITS if name != "style"]
    assert sum(map(len, whole)) == len(set.union(*whole))
    drawn = Counter(drawing.name for drawing in drawings.catalogue())
    for name in ("validation", "test", "compositional"):
        assert all(n == drawn[k] for k, n in Counter(d.name for d in assigned[name]).items())


@pytest.mark.parametrize(
    "kin",
    [
        ("firefighter", "man_firefighter", "woman_firefighter"),
        ("person_biking_dark_skin_tone", "woman_biking_dark_skin_tone"),
        ("people_holding_hands", "men_holding_hands", "woman_and_man_holding_hands"),
        ("kiss", "kiss_woman_man", "kiss_man_man"),
        (
            "kiss_person_person_light_skin_tone_dark_skin_tone",
            "kiss_man_man_light_skin_tone_dark_skin_tone",
        ),
        ("family", "family_adult_child", "family_man_woman_boy"),
        ("France", "St._Martin", "Clipperton_Island"),
    ],
)
def test_names_that_may_have_the_same_picture_are_in_the_same_split(kin):
    assert len({kin_of(name) for name in kin}) == 1
    assert len({split_of(name, "openmoji") for name in kin}) == 1


def test_no_svg_is_in_two_splits(assigned):
    seen = {}
    for split, some in assigned.items():
        for drawing in some:
            svg = Path(drawing.svg_path).read_bytes()
            assert seen.setdefault(svg, split) == split, drawing


def test_sizes_are_near_92_4_4(assigned):
    total = len(drawings.catalogue())
    assert 0.88 < len(assigned["train"]) / total < 0.94
    assert 0.02 < len(assigned["validation"]) / total < 0.05
    assert 0.03 < len(assigned["test"]) / total < 0.05


def test_training_has_both_parts_of_a_held_out_pair_but_never_together(assigned):
    held_out = {profession_and_tone(d.name) for d in assigned["compositional"]}
    seen = {profession_and_tone(d.name) for d in assigned["train"]} - {None}
    elsewhere = {
        profession_and_tone(d.name) for s in SPLITS if s != "compositional" for d in assigned[s]
    }
    assert len(held_out) >= 10
    assert not held_out & elsewhere
    assert {profession for profession, _ in held_out} <= {profession for profession, _ in seen}
    assert {tone for _, tone in held_out} <= {tone for _, tone in seen}


def test_the_other_drawing_of_a_held_out_style_is_in_training(assigned):
    train = {(d.name, d.style) for d in assigned["train"]}
    other = {"openmoji": "twemoji", "twemoji": "openmoji"}
    assert len(assigned["style"]) > 100
    assert all((d.name, other[d.style]) in train for d in assigned["style"])
    assert {d.style for d in assigned["style"]} == set(other)


def test_a_split_depends_only_on_the_name(assigned):
    few = assign_splits(drawings.catalogue()[1000:1200])
    for name in SPLITS:
        assert set(few[name]) <= set(assigned[name])


def test_a_name_with_one_drawing_is_never_in_the_style_split(assigned):
    for drawing in assigned["style"]:
        assert split_of(drawing.name, drawing.style, has_both_styles=False) == "train"
        assert assign_splits([drawing])["train"] == [drawing]


def test_a_pair_needs_a_profession_and_exactly_one_skin_tone():
    assert profession_and_tone("woman_firefighter_dark_skin_tone") == ("firefighter", "dark")
    assert profession_and_tone("firefighter_light_skin_tone") == ("firefighter", "light")
    assert profession_and_tone("firefighter") is None
    assert profession_and_tone("man_biking_dark_skin_tone") is None
    assert profession_and_tone("handshake_dark_skin_tone_light_skin_tone") is None


def test_hash_buckets_do_not_change_between_versions():
    assert [
        hash_bucket("division", name, count=100) for name in ("red_apple", "ghost", "Japan")
    ] == [
        84,
        71,
        56,
    ]


def test_an_unknown_name_has_a_split():
    assert assign_splits([Drawing("new_thing", "openmoji", (0x41,), "x.svg")])["train"]
