"""Autoguidance: loads the weaker versions of stages that guide them (Karras et al. 2024b)."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from diffjax.build import tasks
from diffjax.build.inputs import texts
from diffjax.build.kinds import lora
from diffjax.build.options import config
from diffjax.build.stages import again, loading, places
from diffjax.core import digest
from diffjax.core.command import path
from diffjax.core.errors import ConfigError, require
from diffjax.core.json_types import JsonObject
from diffjax.devices import mesh
from diffjax.generation.chain import Cascade, TrainedStage
from diffjax.generation.recipe import FROM_A_FILE, Origin, Recipe
from diffjax.tasks.classifying import Classifying
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.task import Params

FLAG = "--guide-by"


class Guide(NamedTuple):
    """The place of weaker stages. step: None for the newest. average: None for the first."""

    place: Path
    step: int | None = None
    average: str | None = None


def parse(text: str) -> list[Guide]:
    """Parses "PLACE", "PLACE@STEP", "PLACE@AVERAGE", "PLACE@STEP@AVERAGE", or several of these."""
    return [_parsed(part.strip()) for part in text.split(",")]


def _parsed(text: str) -> Guide:
    step, average = None, None
    while "@" in text:
        before, _, end = text.rpartition("@")
        if end.isdecimal() and len(end) < 16 and step is None:
            step = int(end)
        elif re.fullmatch(r"(decay|power)_[\w.-]+|live", end) and average is None:
            average = end
        else:
            break
        text = before
    require(bool(text), FLAG, text, "want a workdir or an export, as PLACE or PLACE@STEP")
    return Guide(path(text), step, average)


def of_recipe(recipe: Recipe, dirs: Sequence[Path]) -> list[Guide]:
    """The guides of a picture's stages, which are looked for in the places of the stages.

    Raises:
      ConfigError: a guide came from a file, whose name is not in the picture.
    """
    found = []
    for (origin, _), place in zip(recipe.stages, dirs, strict=False):
        guide = origin.guide
        if guide is not None:
            unnamed = guide.average == FROM_A_FILE or places.is_file(place)
            require(not unnamed, "--like", guide.name, f"was guided; name its guide with {FLAG}")
            found.append(Guide(place, guide.step, guide.average))
    return found


def guided(cascade: Cascade, guides: Sequence[Guide], verify: str = "full") -> Cascade:
    """The cascade with each stage guided by the guide that makes pictures of the same size.

    Raises:
      ConfigError: a guide fits no stage, has other conditions, or is the same checkpoint.
      StorageError: see `loading.load`.
    """
    stages, origins = list(cascade.stages), list(cascade.origins)
    sizes = {stage.task.size_px: i for i, stage in enumerate(stages)}
    taken = set()
    for guide in guides:
        dirs = _places_of(guide.place)
        fits = [one for one in dirs if int(places.options_of(one).data.size_px) in sizes]
        what = f"makes no pictures of {' or '.join(map(str, sizes))} px"
        require(bool(fits), FLAG, str(guide.place), what)
        for place in fits:
            task, params, origin = _loaded(place, guide, cascade, verify)
            i = sizes[task.size_px]
            require(i not in taken, FLAG, str(place), f"a second guide of {origins[i].name}")
            _check(place, task, stages[i].task, origin, origins[i])
            stages[i], origins[i] = _with(stages[i], task, params), origins[i].by(origin)
            taken.add(i)
    return dataclasses.replace(cascade, stages=tuple(stages), origins=tuple(origins))


def check_like(recipe: Recipe, cascade: Cascade, helper: Callable[[Origin], Origin | None]) -> None:
    """Checks that the guides, or the classifiers, are those of the picture.

    helper: says which of the two, of the origin of a stage.

    Raises:
      ConfigError: they are others; names both.
    """
    for (stage, _), here in zip(recipe.stages, cascade.origins, strict=True):
        was, now = helper(stage), helper(here)
        if was is None or now is None:
            continue
        require(
            was.checkpoint == now.checkpoint,
            "--like",
            again.said(was),
            f"guided the picture, here is {again.said(now)}; name it with {FLAG} "
            "PLACE@STEP@AVERAGE, or --anyway takes this one",
        )


def _places_of(place: Path) -> list[Path]:
    try:
        return places.stage_dirs(place)
    except ConfigError:
        raise ConfigError(FLAG, str(place), "holds no trained stage") from None


def _loaded(
    place: Path, guide: Guide, cascade: Cascade, verify: str
) -> tuple[Denoising, Params, Origin]:
    options = places.options_of(place)
    with config.interpreting(place):
        width = cascade.encoder.width if cascade.encoder is not None else 0
        if cascade.encoder is not None and (reads := texts.reads_of(options)) is not None:
            same = reads.fingerprint == cascade.encoder.fingerprint
            require(same, FLAG, str(place), "was trained with another text encoder")
        task, whose = tasks.task_of(options, width), loading.identity(options)
    params, origin, at = weights_of(guide, place, task, whose, verify)
    print(f"{options.stage} is guided by step {at} of {place}, {origin.average}")
    return task, params, origin


def weights_of(
    guide: Guide, place: Path, task: Denoising | Classifying, whose: JsonObject, verify: str
) -> tuple[Params, Origin, int | str]:
    """(the parameters of a guide on all devices, its origin, its step).

    whose: what its digest depends on beside the parameters.

    Raises:
      ConfigError: there is no such step or average.
      StorageError: the checkpoint is damaged.
    """
    options = places.options_of(place)
    try:
        found = lora.params_of(options, place, task, guide.average, verify, guide.step)
    except ConfigError as error:
        raise ConfigError(FLAG, str(place), str(error).removeprefix("config error: ")) from None
    params, at, average = found
    wanted = guide.step is None or str(at) == str(guide.step)
    require(wanted, FLAG, f"{place}@{guide.step}", f"has no such step; its newest is {at}")
    step = int(at) if str(at).isdecimal() else None
    checkpoint = digest.digest_of(params, whose)
    everywhere = mesh.replicated(mesh.make_mesh(devices=mesh.sampling_devices()))
    origin = Origin(task.name, task.size_px, step, average, checkpoint)
    return jax.device_put(params, everywhere), origin, at


def _check(place: Path, task: Denoising, own: Denoising, origin: Origin, whose: Origin) -> None:
    space = f"learns other data than {own.name}, such as other latents"
    require(task.space == own.space, FLAG, str(place), space)
    what = f"is not told what {own.name} is told"
    told = lambda one: [(type(c), dict(c.prompts())) for c in one.conditions]  # noqa: E731
    require(told(task) == told(own), FLAG, str(place), what)
    itself = f"is the very checkpoint of {whose.name}: name an earlier step or another average"
    require(origin.checkpoint != whose.checkpoint, FLAG, str(place), itself)


def _with(stage: TrainedStage, guide: Denoising, params: Params) -> TrainedStage:
    frozen = {**stage.task.frozen, "guide": params}
    guide = dataclasses.replace(guide, frozen={})
    task = dataclasses.replace(stage.task, guide=guide, frozen=frozen)
    return dataclasses.replace(stage, task=task)
