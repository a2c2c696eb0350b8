"""Distillation: makes the task of a student that learns from a trained teacher."""

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict

from diffjax.build.kinds import lora
from diffjax.build.stages import bases
from diffjax.core.errors import require
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.distilling import Distilled
from diffjax.tasks.task import Params, Task

# The section that only such configs have, and the key that names the teacher.
SECTION, TEACHER = "distil", "distil.teacher"


def distilled(config: ConfigDict, task: Task) -> Task:
    """The task of a student of the kind `task`; `task` itself if the config has no teacher.

    Raises:
      ConfigError: the teacher is missing, of another network or another one than the run began
        with.
      StorageError: the teacher is damaged.
    """
    if SECTION not in config:
        return task
    bare = without_teacher(config, task)
    teacher = bases.base_of(config, task, TEACHER, read)
    bases.check_known(config, TEACHER, teacher, config.distil.checkpoint)
    frozen = {"teacher": teacher.params, "own": task.frozen}
    return dataclasses.replace(bare, checkpoint=teacher.checkpoint, frozen=frozen)


def without_teacher(config: ConfigDict, task: Task) -> Distilled:
    """The task of `distilled` before it has a teacher, which only knows shapes.

    Raises:
      ConfigError: the task makes no pictures from noise.
    """
    require(isinstance(task, Denoising), SECTION, config.stage, "is no stage that makes pictures")
    assert isinstance(task, Denoising)
    options = config.distil
    guided = dataclasses.replace(
        task.settings,
        guidance_weight=options.guidance_weight,
        clip_guidance=0.0,
        classifier_guidance=0.0,
    )
    return Distilled(
        of=dataclasses.replace(task, frozen={}),
        teacher_steps=options.teacher_steps,
        guided=guided,
        checkpoint=options.checkpoint,
    )


def read(options: ConfigDict, place: Path, task: Task) -> Params:
    """The parameters of a teacher of our own, which may be a LoRA or a student itself."""
    params, _, _ = lora.params_of(options, place, task, None)
    return params
