"""Students beside stages, which draw the same in fewer steps and without guidance.

A folder of exported stages may have a folder `few`, with students under the names of their teachers
(docs/distillation.md).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from diffjax.build.stages import places
from diffjax.core import tensorfile
from diffjax.generation import jobs

FEW = "few"
STEPS = "--steps"
# Flags, beside those of settings, that want the teachers: a student has learned one guidance.
OF_TEACHERS = ("ema", "lora", "guide_by", "negative", "also")


def instead(
    dirs: Sequence[Path], flags: argparse.Namespace, made_by: Sequence[int | None] | None = None
) -> list[Path]:
    """The places of stages, with students in the places of the teachers that have one.

    Stages that --stages names are those that were meant. A student is left out if the flags ask for
    what it has not learned: other settings, a number of steps that is not its own, guidance by
    something. made_by: for a picture that shall be made again the steps of training of the stages
    that made it; these say whether it was a student.

    Raises:
      ConfigError: --steps is wrong.
    """
    if flags.stages:
        return list(dirs)
    there = [beside(place) for place in dirs]
    if made_by is not None:
        steps = [*made_by, *[None] * len(dirs)]
        return [
            student if student and step_of(student) == step else place
            for place, student, step in zip(dirs, there, steps, strict=False)
        ]
    settings = [flag for flag in jobs.SETTINGS | jobs.BY_CRITICS if flag != STEPS]
    names = (*OF_TEACHERS, *(flag[2:].replace("-", "_") for flag in settings))
    if any(getattr(flags, name, None) not in (None, []) for name in names):
        return list(dirs)
    asked: Sequence[int | None] = [None] * len(dirs)
    if (given := getattr(flags, "steps", None)) is not None:
        field, kind, _ = jobs.SETTINGS[STEPS]
        asked = jobs.per_stage(STEPS, field, given, kind, len(dirs))
    return [
        student if student and steps in (None, num_steps_of(student)) else place
        for place, student, steps in zip(dirs, there, asked, strict=True)
    ]


def beside(place: Path) -> Path | None:
    """The student beside an exported stage, if there is one."""
    found = place.parent / FEW / place.name
    return found if place.is_file() and found.is_file() else None


def step_of(student: Path) -> int:
    """At which step of its training it was exported."""
    return int(tensorfile.read_metadata(student)["step"])


def num_steps_of(student: Path) -> int:
    """In how many steps it draws."""
    return int(places.options_of(student).sample.num_steps)
