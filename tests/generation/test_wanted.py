import dataclasses

import pytest

from diffjax.core.errors import ConfigError
from diffjax.generation import wanted
from diffjax.generation.wanted import Wanted
from diffjax.tasks.settings import SampleSettings
from tests import tiny_cascade

GUIDED, PLAIN = SampleSettings(guidance_weight=2.0), SampleSettings()


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("a red apple", ("a red apple", 1.0)),
        ("a red apple:0.5", ("a red apple", 0.5)),
        ("worms:-1", ("worms", -1.0)),
        ("a sign that says: stop", ("a sign that says: stop", 1.0)),
        ("at 10:30:1", ("at 10:30", 1.0)),
        ("x:nan", ("x:nan", 1.0)),
    ],
)
def test_a_further_prompt_may_say_its_share_after_a_colon(text, pair):
    assert wanted.parse_also(text) == pair


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x:11", "--and = 'x:11': a share from -10 to 10"),
        (":1", "want a prompt"),
        (" ", "want a prompt"),
        ("x" * 10_001, "10001 characters"),
    ],
)
def test_what_is_no_further_prompt_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        wanted.parse_also(text)


@pytest.mark.parametrize(
    ("asked", "settings", "guides", "words"),
    [
        ({"negative": "x"}, [PLAIN], [None], "--negative = 'x': has no effect"),
        ({}, [PLAIN, GUIDED], ["weak", None], "--guide-by = 1: has no effect"),
        ({"negative": "x"}, [GUIDED], ["weak"], "--negative = '': cannot be said beside"),
        ({"also": (("x", 1.0),)}, [GUIDED], ["weak"], "--and = '': cannot be said beside"),
        ({"also": (("x", 1.0),)}, [SampleSettings(guidance_weight=2.0, guidance_rescale=0.5)],
         [None], "--guidance-rescale = 0.5: must be 0 beside --and"),
    ],
)  # fmt: skip
def test_guidance_that_has_no_effect_or_cannot_be_combined_is_refused(
    asked, settings, guides, words
):
    with pytest.raises(ConfigError, match=words):
        wanted.check_guidance(Wanted(["a"], [0], **asked), settings, guides)


def test_guidance_that_has_an_effect_is_not_refused():
    for asked, guide in (({"negative": "x"}, None), ({}, "weak"), ({"also": (("x", 1.0),)}, None)):
        wanted.check_guidance(Wanted(["a"], [0], **asked), [GUIDED, PLAIN], [guide, None])
    wanted.check_guidance(Wanted(["a"], [0], also=(("x", 1.0),)), [PLAIN], [None])


def test_prompts_are_told_in_a_style_unless_they_shall_be_told_as_written(tmp_path):
    plain = tiny_cascade.cascade(tmp_path)
    stages = dataclasses.replace(plain, styles={"oil": "an oil painting of {}"})
    asked = Wanted(["a pear", "a pear in oil"], [0])
    told = ["an oil painting of a pear", "a pear in oil"]
    assert [job.prompt for job in wanted.jobs_of(asked, stages)] == told
    for kept, given in ((asked._replace(as_written=True), stages), (asked, plain)):
        assert [job.prompt for job in wanted.jobs_of(kept, given)] == asked.prompts
