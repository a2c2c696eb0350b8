"""Opens the CLIP that a flag or a config names, and lets it guide stages or choose pictures."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from diffjax.build.guides import trained_clip
from diffjax.build.kinds import contrastive
from diffjax.build.stages import places
from diffjax.core import tensorfile
from diffjax.core.command import path
from diffjax.core.errors import ConfigError, InputError, require
from diffjax.devices import mesh
from diffjax.encoders.clip import encoder, vocabulary
from diffjax.encoders.clip.encoder import Clip
from diffjax.generation.chain import Cascade, TrainedStage
from diffjax.generation.jobs import Job
from diffjax.generation.recipe import MAX_CANDIDATES, Recipe
from diffjax.models.clip.clip import CLIP
from diffjax.tasks import critic

SHIPPED = "shipped"


def configured(cascade: Cascade) -> Cascade:
    """The cascade with the scales of guidance by critics that the configs of its stages say."""
    return cascade.with_settings(
        [
            dataclasses.replace(
                stage.settings,
                clip_guidance=stage.task.settings.clip_guidance,
                classifier_guidance=stage.task.settings.classifier_guidance,
            )
            for stage in cascade.stages
        ]
    )


def named_by(dirs: Sequence[Path]) -> str:
    """The CLIP that the first stage's config names."""
    if places.is_others(dirs[0]):
        return SHIPPED
    options = places.options_of(dirs[0])
    return str(options.sample.clip) if "clip" in options.sample else SHIPPED


def guided(cascade: Cascade, clip: Clip) -> Cascade:
    """The cascade with the CLIP as the critic of each stage whose settings say so.

    Raises:
      ConfigError: there is no text to compare with; or the CLIP takes noised pictures, and those
        of a stage that it is to guide have another size.
    """
    model, stages = CLIP(clip.config, dtype=clip.dtype), []
    everywhere = mesh.replicated(mesh.make_mesh(devices=mesh.sampling_devices()))
    weights = jax.device_put(critic.weights_of(clip.params), everywhere)
    for stage in cascade.stages:
        scale, task, side_px = stage.settings.clip_guidance, stage.task, clip.config.size_px
        if not scale:
            stages.append(stage)
            continue
        no_text = f"compares pictures with prompts, and {task.name} takes no text"
        require(cascade.encoder is not None, "--clip-guidance", scale, no_text)
        fits = not clip.config.noised or (task.size_px == side_px and task.space is None)
        require(
            fits,
            "--clip-guidance",
            scale,
            f"the CLIP takes noised pictures of {side_px} px, {task.name} makes {task.size_px}"
            f"{' px of latents' if task.space else ''}; "
            "give it 0, as in --clip-guidance 1,0",
        )
        frozen = {**task.frozen, "critic": weights}
        task = dataclasses.replace(task, critic=critic.ClipCritic(model), frozen=frozen)
        stages.append(TrainedStage(task, stage.params, stage.settings))
    return dataclasses.replace(cascade, stages=tuple(stages), clip=clip)


def check_like(recipe: Recipe, clip: Clip) -> None:
    """Checks that a CLIP is the one that guided a picture.

    Raises:
      ConfigError: it is another.
    """
    require(
        recipe.clip in (None, clip.fingerprint),
        "--like",
        str(recipe.clip)[:12],
        f"is the CLIP that guided the picture, here is {clip.fingerprint[:12]}; name it with "
        "--clip, or --anyway takes this one",
    )


def check_flags(
    of: int, where: str | None, guides: bool, jobs: Sequence[Job], cascade: Cascade
) -> None:
    """Checks --best-of and --clip, before a CLIP is loaded. guides: whether one guides a stage.

    Raises:
      ConfigError: a number is out of range, --clip has no effect, or there is nothing to compare
        pictures with.
    """
    require(1 <= of <= MAX_CANDIDATES, "--best-of", of, f"1, which is off, to {MAX_CANDIDATES}")
    unused = "has no effect without --best-of 2 or more, or --clip-guidance above 0"
    require(where is None or of > 1 or guides, "--clip", where, unused)
    no_text = f"compares pictures with prompts, and {cascade.stages[0].task.name} takes no text"
    require(of == 1 or cascade.encoder is not None, "--best-of", of, no_text)
    blank = "compares pictures with their prompts, and one is blank"
    require(of == 1 or all(job.prompt.strip() for job in jobs), "--best-of", of, blank)


def load(where: str, flag: str = "--clip", verify: str = "full") -> Clip:
    """The CLIP of a workdir or an export, or of a folder, a file or a name of `encoder.load`.

    where: "shipped" is the one that comes with diffjax. flag: the name of the flag, for messages.

    Raises:
      ConfigError: there is none, it is none, or its vocabulary is not its own.
      StorageError: its checkpoint is damaged.
    """
    require(bool(where.strip()), flag, where, "name a CLIP: a workdir, a folder, or shipped")
    place = path(where)
    if where == SHIPPED and not place.exists():
        where = vocabulary.EMOJI
        what = "no CLIP came along; train one with configs/clip.py and name its workdir"
        require(encoder.SHIPPED[where].is_dir(), flag, SHIPPED, what)
    elif (options := _trained(place, flag)) is not None:
        makes = "makes pictures; want a CLIP, which compares them with texts"
        require(contrastive.is_contrastive(options), flag, where, makes)
        return trained_clip.load(place, verify=verify).clip
    try:
        return encoder.load(where)
    except (ValueError, OSError) as error:
        raise ConfigError(flag, where, str(error)) from None


def _trained(place: Path, flag: str) -> ConfigDict | None:
    """The config of a workdir or of an export; None if the place is neither."""
    if not places.is_file(place):
        ours = (place / "checkpoints").is_dir()
        return places.options_of(place) if ours else None
    try:
        text = tensorfile.read_metadata(place).get("config")
    except FileNotFoundError:
        raise ConfigError(flag, str(place), "there is no such file") from None
    except (InputError, ValueError, OSError):
        return None  # `encoder.load` says what is wrong with it
    return places.options_of(place) if text else None
