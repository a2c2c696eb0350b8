import dataclasses

import pytest

from diffjax.diffusion.sampling.spacing import ON_A_TABLE, SPACINGS, TABLE_STEPS
from diffjax.diffusion.schedule import cosine
from diffjax.tasks.settings import CHOICES, LIMITS, SampleSettings, fault, faults


def test_every_setting_has_its_limits_or_its_choices_and_the_defaults_lie_within():
    names = {field.name for field in dataclasses.fields(SampleSettings)}
    assert names == LIMITS.keys() | CHOICES.keys()
    assert not LIMITS.keys() & CHOICES.keys()
    assert faults(SampleSettings()) == {}


@pytest.mark.parametrize("name", LIMITS)
def test_a_number_outside_its_limits_or_of_another_kind_is_a_fault(name):
    low, high = LIMITS[name]
    for value in (low - 1, high + 1, float("nan"), float("inf"), True, "3", None):
        assert fault(name, value)
    assert not fault(name, low)
    assert not fault(name, high)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_spacing_takes_as_many_steps_as_its_limit_says_and_no_more(spacing):
    """What the table of limits allows can be made, and what it refuses cannot."""
    for steps, fits in ((1000, True), (1001, spacing not in ON_A_TABLE)):
        settings = SampleSettings(num_steps=steps, spacing=spacing)
        assert (faults(settings, TABLE_STEPS) == {}) is fits
        if fits:
            assert len(SPACINGS[spacing](cosine(), steps)) == steps + 1
        else:
            with pytest.raises(ValueError, match="1000"):
                SPACINGS[spacing](cosine(), steps)


def test_an_interval_of_guidance_that_ends_before_it_begins_is_a_fault():
    assert "guidance_from" in faults(SampleSettings(guidance_from=3.0, guidance_to=2.0))


def test_the_limits_are_what_the_pages_say():
    """docs/sampling.md and the help of the flags."""
    assert LIMITS == {
        "num_steps": (1, 10_000),
        "noise": (0, 1),
        "guidance_weight": (0, 1_000),
        "percentile": (1, 100),
        "aug_level": (0, 1),
        "guidance_rescale": (0, 1),
        "guidance_from": (-100, 100),
        "guidance_to": (-100, 100),
        "clip_guidance": (0, 1_000),
        "classifier_guidance": (0, 1_000),
    }
    # what a picture without these fields was sampled with
    later = (SampleSettings().guidance_rescale, SampleSettings().guidance_from)
    assert (*later, SampleSettings().guidance_to) == (0.0, -100.0, 100.0)
