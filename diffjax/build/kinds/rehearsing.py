"""Rehearsal: makes the task of a stage that learns on its own way from noise to pictures."""

import dataclasses

from ml_collections import ConfigDict

from diffjax.build.kinds import perceptual
from diffjax.core.errors import require
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.rehearsing import Rehearsed
from diffjax.tasks.task import Task

# The section that only such configs have.
SECTION = "rehearsal"


def rehearsed(config: ConfigDict, task: Task) -> Task:
    """The task of learning on the way of `task`; `task` itself if the config does not want it.

    Raises:
      ConfigError: the task makes no pictures from noise; the weights of the distance are missing.
    """
    if SECTION not in config:
        return task
    require(isinstance(task, Denoising), SECTION, config.stage, "is no stage that makes pictures")
    assert isinstance(task, Denoising)
    options = config.rehearsal
    distance, params = perceptual.distance_of(options.perceptual, f"{SECTION}.perceptual")
    return Rehearsed(
        of=dataclasses.replace(task, frozen={}),
        perceptual=distance,
        weight=options.perceptual_weight,
        frozen={"own": task.frozen, **({} if distance is None else {"perceptual": params})},
    )


def check(config: ConfigDict) -> None:
    """Checks that such a config samples as it learns.

    Raises:
      ConfigError: a value is not allowed.
    """
    if SECTION not in config:
        return
    sample, diffusion, options = config.sample, config.diffusion, config.rehearsal
    require("distil" not in config, SECTION, "a section", "a student has its teacher's way")
    require("lora" not in config, SECTION, "a section", "train the LoRA on noised pictures")
    require(sample.sampler == "ddim" and not sample.noise, "sample.sampler", sample.sampler,
            'a stage learns on its way of "ddim" without noise')  # fmt: skip
    require(sample.guidance_weight == 1, "sample.guidance_weight", sample.guidance_weight,
            "must be 1: it learns on its way without guidance")  # fmt: skip
    for key in ("self_condition", "learned_schedule"):
        require(not diffusion[key], f"diffusion.{key}", diffusion[key], "must be 0 in a rehearsal")
    require(not options.perceptual or "latent" not in config, f"{SECTION}.perceptual",
            options.perceptual, 'compares pictures; want "" for latents')  # fmt: skip
    perceptual.check(options.perceptual, f"{SECTION}.perceptual")
