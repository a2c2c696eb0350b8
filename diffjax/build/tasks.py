"""Makes the task that a config trains."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from ml_collections import ConfigDict

from diffjax.build import conditions, noise
from diffjax.build.inputs import vectors
from diffjax.build.kinds import autoencoding, autoregressive, classifying, contrastive, latents
from diffjax.build.models import STEPS, model_of
from diffjax.core.errors import require
from diffjax.core.types import Schedule
from diffjax.diffusion.sampling.spacing import on_grid
from diffjax.diffusion.table import steps_of
from diffjax.tasks.classifying import Classifying
from diffjax.tasks.conditions import (
    NO_TEXT,
    Condition,
)
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.learning import Learning
from diffjax.tasks.prior import DiffusionPrior
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.space import LATENT
from diffjax.tasks.task import Params, Task
from diffjax.tasks.vectors import IMAGE_VECTOR

PRIOR = "prior"  # the kind of its network
Told = TypeVar("Told")  # a network


class Kind(NamedTuple):
    """How another kind of task than making pictures from noise is made of its config.

    choices: the values that its keys may have. check: refuses what only such a config can have
    wrong. instead: what it does instead of making pictures from noise, for messages.
    """

    task_of: Callable[[ConfigDict], Task]
    check: Callable[[ConfigDict], None]
    choices: Mapping[str, Iterable[str]]
    instead: str


def classifying_of(config: ConfigDict) -> Classifying:
    """The task of a classifier, which is told steps if its noise is that of a table."""
    schedule = noise.schedule_of(config)
    model = told_steps(classifying.model_of(config), schedule, config)
    return classifying.task_of(config, schedule, model)


def check_classifying(config: ConfigDict) -> None:
    """Checks what only the config of a classifier has.

    Raises:
      ConfigError: a value is not allowed.
    """
    noise.schedule_of(config)
    told = config.model.steps
    what = f"a network that is told steps needs diffusion.schedule {', '.join(noise.ON_TABLES)}"
    require(not told or config.diffusion.schedule in noise.ON_TABLES, "model.steps", told, what)
    classifying.check(config)


# Kinds of tasks by the section that only their configs have; a config without makes pictures.
KINDS: Mapping[str, Kind] = {
    contrastive.SECTION: Kind(
        contrastive.task_of,
        contrastive.check,
        contrastive.CHOICES,
        "compares pictures with texts, and makes none; see diffjax.evaluate",
    ),
    autoencoding.SECTION: Kind(
        autoencoding.task_of,
        autoencoding.check,
        autoencoding.CHOICES,
        "shortens pictures and makes them again, but makes none from noise",
    ),
    classifying.SECTION: Kind(
        classifying_of,
        check_classifying,
        classifying.CHOICES,
        "tells the classes of noised pictures, and makes none; it guides: --guide-by",
    ),
    autoregressive.SECTION: Kind(
        autoregressive.task_of,
        autoregressive.check,
        autoregressive.CHOICES,
        "makes vectors of texts, and no pictures",
    ),
}


def other_kind(config: ConfigDict) -> Kind | None:
    """The kind of task that the config trains; None if it makes pictures from noise."""
    return next((kind for section, kind in KINDS.items() if section in config), None)


def trained_task_of(config: ConfigDict, text_width: int) -> Task:
    """The task that the config trains, of whatever kind; text_width: as in `task_of`."""
    kind = other_kind(config)
    return task_of(config, text_width) if kind is None else kind.task_of(config)


def task_of(config: ConfigDict, text_width: int) -> Denoising:
    """The task of making pictures; text_width: the width of the text embeddings.

    Raises:
      ConfigError: the config trains another kind of task, or learns latents of an autoencoder that
        cannot be opened.
    """
    kind = other_kind(config)
    require(kind is None, "stage", config.stage, kind.instead if kind else "")
    told = conditions.conditions_of(config, text_width)
    if config.model.kind == PRIOR:
        return prior_of(config, told)
    size_px = config.data.size_px
    crop_px = config.data.crop_px
    space, shape = None, (size_px, size_px, 3)
    frozen: Params = {}
    if latents.SECTION in config:
        space, frozen = latents.space_of(config)
        side = size_px // space.factor
        shape = (side, side, space.channels)
    if conditions.embeds_blank(config):
        frozen = {**frozen, NO_TEXT: conditions.no_text_of(config, text_width)}
    schedule = noise.schedule_of(config)
    return Denoising(
        name=config.stage,
        model=told_steps(model_of(config), schedule, config),
        shape=shape,
        conditions=told,
        schedule=schedule,
        predict=config.diffusion.predict,
        weighting=config.diffusion.weighting,
        times=noise.times_of(config),
        settings=settings_of(config),
        learning=learning_of(config),
        crop_px=crop_px if crop_px < size_px else 0,
        of="image" if space is None else LATENT,
        space=space,
        frozen=frozen,
    )


def prior_of(config: ConfigDict, told: Sequence[Condition]) -> DiffusionPrior:
    """The task of a diffusion prior, which is told a text and its vector."""
    width = config.vectors.width
    return DiffusionPrior(
        name=config.stage,
        model=model_of(config),
        shape=(width,),
        conditions=tuple(told),
        schedule=noise.schedule_of(config),
        predict=config.diffusion.predict,
        weighting=config.diffusion.weighting,
        times=noise.times_of(config),
        settings=settings_of(config),
        learning=learning_of(config),
        of=IMAGE_VECTOR,
        scale=vectors.scale_of(config),
        best_of=config.sample.best_of,
    )


def told_steps(model: Told, schedule: Schedule, config: ConfigDict) -> Told:
    """The network, which is told steps if it takes them and the noise is that of a table."""
    count = config.model.get(STEPS, 0)
    told = config.model.kind == "latent_unet" or count
    if not told or config.diffusion.schedule not in noise.ON_TABLES:
        return model
    table = on_grid(schedule)
    steps = steps_of(table, count / len(table)) if count else steps_of(table)
    return model.clone(steps=steps)  # type: ignore[attr-defined]


def learning_of(config: ConfigDict) -> Learning:
    """The choices of what is learned beside x_0, and of how errors count."""
    return Learning(**{name: config.diffusion[name] for name in Learning.__dataclass_fields__})


def settings_of(config: ConfigDict) -> SampleSettings:
    """The settings with which the stage is sampled."""
    fields = SampleSettings.__dataclass_fields__
    return SampleSettings(**{name: config.sample[name] for name in fields if name in config.sample})
