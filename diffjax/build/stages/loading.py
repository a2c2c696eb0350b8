"""Loads trained stages: their tasks, the parameters of an average, and where these come from."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import jax
from ml_collections import ConfigDict

from diffjax.build import tasks
from diffjax.build.inputs import styles, texts
from diffjax.build.kinds import lora
from diffjax.build.options import config
from diffjax.build.options.identity import identity
from diffjax.build.others import ancestors, stable_diffusion, unclip
from diffjax.build.stages import decoders, places
from diffjax.build.stages.places import stage_dirs
from diffjax.core import digest
from diffjax.core.errors import require
from diffjax.devices import mesh
from diffjax.encoders.text import Reads
from diffjax.encoders.unclip.texts import is_whole
from diffjax.generation.chain import Cascade, TrainedStage
from diffjax.generation.recipe import FROM_A_FILE, Origin
from diffjax.generation.telling import Prior, Teller, is_told_vectors
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.vectors import MakesVectors

__all__ = [
    "identity",
    "load",
    "load_stage",
    "names_of",
    "stage_dirs",
    "teller_of",
]

PRIOR_ALONE = "is a prior, which makes vectors of pictures: add a decoder (docs/unclip.md)"


def load(
    dirs: Sequence[Path],
    ema: str | Sequence[str | None] | None = None,
    verify: str = "full",
    steps: Sequence[int | None] | None = None,
) -> Cascade:
    """The trained stages of these places (see `places.stage_dirs`), and their encoder.

    ema: the average whose parameters are loaded, or one for each stage with commas (see
    `lora.params_of`). Every device that samples gets all parameters. verify: "full" hashes the
    files of the checkpoints, "size" only compares their sizes. steps: for each stage the step of
    the checkpoint if it exists, else the newest.

    Raises:
      ConfigError: the stages do not fit each other, or one has no checkpoint or no such average.
      StorageError: a stage has checkpoints, but none is complete.
    """
    if others := [path for path in dirs if is_whole(path) or places.is_stable_diffusion(path)]:
        kind = "a whole Karlo" if is_whole(others[0]) else "a checkpoint of Stable Diffusion"
        alone = f"is {kind}, which is no stage of a cascade: give it alone"
        require(len(dirs) == 1, "--stages", str(others[0]), alone)
        require(ema is None or ema == [None] or ema == [FROM_A_FILE], "--ema", ema,
                f"{others[0]} has one set of parameters")  # fmt: skip
        return (unclip if is_whole(others[0]) else stable_diffusion).load(others[0])
    asked = list(zip(dirs, names_of(ema, len(dirs)), steps or [None] * len(dirs), strict=True))
    priors = [one for one in asked if places.is_prior(one[0])]
    if priors:
        made = _load([one for one in asked if one not in priors], priors[0][0], verify)
        return with_prior(made, dirs, priors, verify)
    return _load(asked, dirs[0], verify)


def _load(
    asked: Sequence[tuple[Path, str | None, int | None]], place: Path, verify: str
) -> Cascade:
    """The stages that make pictures. asked: the place, average and step of each."""
    require(bool(asked), "--stages", str(place), PRIOR_ALONE)
    encoder: Reads | None = None
    first: ConfigDict | None = None
    for path, *_ in asked:
        if ancestors.is_one(path):
            continue
        options = places.options_of(path)
        if encoder is None and told_by(options):
            first = options
            with config.interpreting(path):
                encoder = texts.reads_of(options)
    trained, origins, size_px = [], [], 0
    for path, name, step in asked:
        if ancestors.is_one(path):
            require(name in (None, FROM_A_FILE), "--ema", name, f"{path} has one set of parameters")
            stage, origin = ancestors.load_stage(path)
            encoder = encoder or ancestors.reads_of(path, stage.task)
            check_start(stage.task, path, size_px)
            size_px = stage.task.size_px
            trained.append(stage)
            origins.append(origin)
            continue
        options = places.options_of(path)
        with config.interpreting(path):
            check_told(options, first, path)
            width = encoder.width if encoder is not None else 0
            task = tasks.task_of(options, width)
        check_start(task, path, size_px)
        size_px = task.size_px
        stage, origin = load_stage(options, path, task, name, verify, step)
        trained.append(stage)
        origins.append(origin)
    said = {} if first is None else styles.styles_of(first)
    return Cascade(tuple(trained), tuple(origins), encoder, styles=said)


def with_prior(
    cascade: Cascade,
    dirs: Sequence[Path],
    priors: Sequence[tuple[Path, str | None, int | None]],
    verify: str,
) -> Cascade:
    """The cascade, whose decoder is told vectors by a prior. dirs: of all stages.

    Raises as `load` does.
    """
    teller = teller_of(cascade.stages[0].task, dirs, priors, verify)
    return dataclasses.replace(cascade, teller=teller)


def teller_of(
    first: Denoising,
    dirs: Sequence[Path],
    priors: Sequence[tuple[Path, str | None, int | None]],
    verify: str,
) -> Teller:
    """What tells a decoder the vectors that a prior makes. first: the decoder's task.

    Raises as `load` does.
    """
    place, name, step = priors[0]
    more = [str(other) for other, *_ in priors[1:]]
    require(not more, "--stages", more, f"is another prior beside {place}: give one")
    what = f"makes vectors, of which {first.name} is told none: it wants a decoder (docs/unclip.md)"
    require(is_told_vectors(first), "--stages", str(place), what)
    clip, options = decoders.clip_of(dirs), places.options_of(place)
    with config.interpreting(place):
        encoder = texts.encoder_of(options)
        task = tasks.trained_task_of(options, encoder.width)
    stage, origin = load_stage(options, place, cast(Denoising, task), name, verify, step)
    trained = cast(MakesVectors, stage.task)
    made = Prior(trained, stage.params, stage.settings, origin, encoder)
    return Teller("prior", clip, made)


# The sections of what stages are told of a text, and the keys in which all stages agree.
TOLD = {"text": ("encoder", "max_tokens"), "tokens": ("vocabulary", "length")}


def told_by(options: ConfigDict) -> str:
    """The section of the text that a stage is told; "" if it is told none."""
    return next((name for name in TOLD if name in options), "")


def check_told(options: ConfigDict, first: ConfigDict | None, place: Path) -> None:
    """Checks that a stage is told its text as the first one is that is told one.

    Raises:
      ConfigError: it is not.
    """
    name = told_by(options)
    if first is None or not name:
        return
    there = told_by(first)
    allowed = f"the first stage was trained with {there}"
    require(name == there, f"{name} of {place}", "a section", allowed)
    for key in TOLD[name]:
        require(
            options[name][key] == first[name][key],
            f"{name}.{key} of {place}",
            options[name][key],
            f"the first stage was trained with {first[name][key]!r}",
        )


def check_start(task: Denoising, place: Path, size_px: int) -> None:
    """Checks that a stage starts from pictures of this side; 0 for none."""
    require(
        task.low_res_px == (size_px or None),
        "--stages",
        str(place),
        f"starts from {task.low_res_px or 'no picture'} px, "
        f"the stage before it makes {size_px or 'none'}",
    )


def names_of(ema: str | Sequence[str | None] | None, count: int) -> list[str | None]:
    """The average of each of `count` stages, as --ema names them; None is a stage's first.

    Raises:
      ConfigError: neither one for all nor one for each.
    """
    names = ema.split(",") if isinstance(ema, str) else ema or [None]
    allowed = f"one for all stages, or {count} with commas"
    require(len(names) in (1, count), "--ema", ema, allowed)
    return list(names) * (count // len(names))


def load_stage(
    options: ConfigDict,
    place: Path,
    task: Denoising,
    name: str | None,
    verify: str = "full",
    step: int | None = None,
) -> tuple[TrainedStage, Origin]:
    """A task with its parameters on every device that samples, and where they come from.

    Its settings are those of its config, but no critic guides it (see `clips.configured`).

    Raises what `lora.params_of` does.
    """
    with config.interpreting(place):
        whose = identity(options)
    params, found, average = lora.params_of(options, place, task, name, verify, step)
    print(f"{options.stage}: step {found} of {place}, {average}")
    origin = Origin(
        name=task.name,
        size_px=task.size_px,
        step=int(found) if str(found).isdecimal() else None,
        average=average,
        checkpoint=digest.digest_of(params, whose),
    )
    everywhere = mesh.replicated(mesh.make_mesh(devices=mesh.sampling_devices()))
    params = jax.device_put(params, everywhere)
    task = dataclasses.replace(task, frozen=jax.device_put(task.frozen, everywhere))
    off = dataclasses.replace(task.settings, clip_guidance=0.0, classifier_guidance=0.0)
    return TrainedStage(task, params, off), origin
