"""Prompts that name no style are drawn in one; others are told as they are."""

import pytest

from diffjax.build.inputs.styles import STYLES, styles_of
from diffjax.build.options import config
from diffjax.data.emoji import drawings, styles
from diffjax.data.emoji.phrases import captions
from diffjax.generation.jobs import Job
from diffjax.generation.styles import styled, with_style

EMOJI = STYLES["emoji"]


@pytest.mark.parametrize(
    ("prompt", "seed", "wanted"),
    [
        ("a red apple", 0, "an openmoji drawing of a red apple"),
        ("a red apple", 1, "a twemoji drawing of a red apple"),
        ("a red apple", 2, "an openmoji drawing of a red apple"),
        (" a red apple\n", 5, "a twemoji drawing of a red apple"),
        ("a red apple, Twemoji style", 0, "a red apple, Twemoji style"),
        ("OPENMOJI emoji: red apple", 1, "OPENMOJI emoji: red apple"),
        ("an unopenmoji apple", 1, "a twemoji drawing of an unopenmoji apple"),
        ("{0} {x}", 0, "an openmoji drawing of {0} {x}"),
        ("", 0, ""),
        (" \t", 1, " \t"),
    ],
)
def test_a_prompt_without_a_style_gets_that_of_its_seed(prompt, seed, wanted):
    assert with_style(prompt, seed, EMOJI) == wanted


def test_nothing_changes_where_no_styles_are_known():
    assert with_style("a red apple", 1, {}) == "a red apple"


def test_of_a_job_only_the_prompt_changes():
    (job,) = styled([Job("a pear", 1, "red", also=(("a frog", 0.5),))], EMOJI)
    assert job == Job("a twemoji drawing of a pear", 1, "red", also=(("a frog", 0.5),))


def test_the_styles_are_those_of_the_data_and_are_told_as_its_first_captions_tell_them():
    assert tuple(EMOJI) == drawings.STYLES
    assert tuple(STYLES["emoji_styles"]) == styles.STYLES
    for style, template in STYLES["emoji_styles"].items():
        assert template.replace("{}", "a red apple") == captions("red_apple", style)[0]


def test_other_data_have_no_styles():
    options = config.load("configs/base64.py:tiny").copy_and_resolve_references().unlock()
    options.data.name = "emoji/64"
    assert styles_of(options) == EMOJI
    options.data.name = "folder:emoji/64"
    assert styles_of(options) == {}
