"""The scheduler_config.json of diffusers: which sampler and which spacing of ours it names."""

from pathlib import Path

import numpy as np
import pytest

from diffjax.diffusion.sampling.sampler import SAMPLERS
from diffjax.diffusion.sampling.spacing import SPACINGS
from diffjax.encoders.stable_diffusion import scheduler

FILE = Path("scheduler_config.json")


def read(name, **said):
    return scheduler.of_config({"_class_name": name, **said}, FILE)


@pytest.mark.parametrize(
    ("name", "said", "wanted"),
    [
        ("PNDMScheduler", {"steps_offset": 1, "skip_prk_steps": True}, ("pndm", 0.0, "leading_1")),
        ("PNDMScheduler", {"rescale_betas_zero_snr": True}, ("ddim", 0.0, "leading")),
        ("DDIMScheduler", {"steps_offset": 1}, ("ddim", 0.0, "leading_1")),
        ("DDIMScheduler", {"timestep_spacing": "trailing"}, ("ddim", 0.0, "trailing")),
        ("DDPMScheduler", {}, ("ddpm", 0.0, "leading")),
        ("EulerDiscreteScheduler", {"steps_offset": 1}, ("euler", 0.0, "linspace")),
        ("EulerAncestralDiscreteScheduler", {}, ("ddim", 1.0, "linspace")),
        ("HeunDiscreteScheduler", {"use_karras_sigmas": True}, ("heun", 0.0, "karras")),
        ("DPMSolverMultistepScheduler", {}, ("dpmpp_2m", 0.0, "linspace_inner")),
        (
            "DPMSolverMultistepScheduler",
            {"timestep_spacing": "leading", "steps_offset": 1},
            ("dpmpp_2m", 0.0, "leading_inner"),
        ),
        ("UniPCMultistepScheduler", {"timestep_spacing": "trailing"}, ("unipc", 0.0, "trailing")),
        ("LCMScheduler", {"steps_offset": 1}, ("ddim", 0.0, "leading_1")),
    ],
)
def test_a_class_of_diffusers_has_a_sampler_and_a_spacing(name, said, wanted):
    found = read(name, **said)
    assert (found.sampler, found.noise, found.spacing) == wanted
    assert found.sampler in SAMPLERS
    assert found.spacing in SPACINGS


def test_the_betas_are_those_of_the_config_and_1e_4_to_0_02_where_it_lacks_them():
    plain = read("DDIMScheduler")
    assert (plain.betas, plain.beta_min, plain.beta_max) == ("linear", 1e-4, 0.02)
    found = read("DDIMScheduler", beta_schedule="scaled_linear", beta_start=0.001, beta_end=0.01)
    betas = np.linspace(0.001**0.5, 0.01**0.5, 1000) ** 2
    alpha_bar = np.cumprod(1 - betas)
    ends = np.log(alpha_bar / (1 - alpha_bar))[[-1, 0]]
    np.testing.assert_allclose(found.schedule()(np.array([1.0, 0.0], np.float32)), ends, rtol=1e-4)


@pytest.mark.parametrize("predict", scheduler.KINDS.values())
def test_what_is_written_is_read_again(predict):
    made = scheduler.Scheduler(predict=predict, beta_max=0.015)
    assert scheduler.of_config(scheduler.config_of(made), FILE) == made


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"beta_end": True}, "beta_end is True, want a number between 0 and 1"),
        ({"beta_start": 0.5}, "beta_start 0.5 is above beta_end 0.02"),
        ({"trained_betas": [0.1]}, "trained_betas is"),
        ({"prediction_type": 3}, "prediction_type is '3', want one of epsilon"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_in_one_line(said, match):
    with pytest.raises(ValueError, match=match) as caught:
        read("DDIMScheduler", **said)
    assert "\n" not in str(caught.value)
