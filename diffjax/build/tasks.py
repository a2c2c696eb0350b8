"""Makes the task that a config trains."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffjax.build.inputs import texts, vectors
from diffjax.build.kinds import autoencoding, autoregressive, classifying, contrastive, latents
from diffjax.build.models import STEPS, TOLD_TEXT_VECTORS, model_of
from diffjax.core.errors import require
from diffjax.core.types import Schedule
from diffjax.diffusion import schedule
from diffjax.diffusion.sampling.spacing import TABLE_STEPS, on_grid
from diffjax.diffusion.table import TERMINAL_LOGSNR, steps_of
from diffjax.diffusion.training.times import TIMES, Importance, TimeSampler, logit_normal
from diffjax.encoders.stable_diffusion.encoder import PREFIX as STABLE_DIFFUSION
from diffjax.tasks.classifying import Classifying
from diffjax.tasks.conditions import (
    NO_TEXT,
    Class,
    Condition,
    Embedding,
    LowRes,
    Masked,
    Text,
    Tokens,
)
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.learning import Learning
from diffjax.tasks.prior import DiffusionPrior
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.space import LATENT
from diffjax.tasks.task import Params, Task
from diffjax.tasks.vectors import IMAGE_VECTOR, TextVector

PRIOR = "prior"  # the kind of its network
IMPORTANCE, LOGIT_NORMAL = "importance", "logit_normal"
Told = TypeVar("Told")  # a network
# The schedules that are tables of steps.
ON_TABLES = ("linear", "quadratic", "discrete_cosine")
# The fewest steps of their chains, with betas below 1.
FEWEST = {"linear": 21, "quadratic": 13}
# The schedules whose ends, logsnr_min and logsnr_max, can be chosen.
WITH_ENDS = ("cosine", "sigmoid", "flow", "uniform", "edm")
# The schedules that come to noise alone if they are not cut off before; tables are rescaled so.
WITH_ZERO_SNR = ("linear", "quadratic", "discrete_cosine", "cosine", "sigmoid", "flow")


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
    noise = schedule_of(config)
    model = told_steps(classifying.model_of(config), noise, config)
    return classifying.task_of(config, noise, model)


def check_classifying(config: ConfigDict) -> None:
    """Checks what only the config of a classifier has.

    Raises:
      ConfigError: a value is not allowed.
    """
    schedule_of(config)
    told = config.model.steps
    what = f"a network that is told steps needs diffusion.schedule {', '.join(ON_TABLES)}"
    require(not told or config.diffusion.schedule in ON_TABLES, "model.steps", told, what)
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
    size_px = config.data.size_px
    low_res_px = config.low_res.size_px if "low_res" in config else 0
    conditions: list[Condition] = []
    if "text" in config:
        text = Text(text_width, config.text.max_tokens, config.text.drop, embeds_blank(config))
        conditions.append(text)
    if "tokens" in config:
        conditions.append(Tokens(config.tokens.length, config.tokens.drop))
    if config.model.kind == PRIOR:
        return prior_of(config, conditions)
    if "classes" in config:
        names = tuple(config.classes.names)
        null = config.model.get("null_class", True)
        conditions.append(Class(config.classes.num, config.classes.drop, names, null))
    if "embedding" in config:
        vector = config.embedding
        conditions.append(Embedding(vector.of, vector.width, vector.drop))
    if config.model.kind in TOLD_TEXT_VECTORS:
        conditions.append(TextVector(config.vectors.width))
    if "mask" in config:
        told = config.mask
        hole = Masked(size_px, drop=told.drop, strokes=told.strokes, known=told.known)
        conditions.append(hole)
    if low_res_px:
        factor, level = size_px // low_res_px, config.low_res.max_aug_level
        noised = config.model.kind != "unet"  # which is told no level of that noise
        spoil = config.low_res.degrade or None
        conditions.append(LowRes(low_res_px, factor, _schedule("cosine"), level, noised, spoil))
    crop_px = config.data.crop_px
    space, shape = None, (size_px, size_px, 3)
    frozen: Params = {}
    if latents.SECTION in config:
        space, frozen = latents.space_of(config)
        side = size_px // space.factor
        shape = (side, side, space.channels)
    if embeds_blank(config):
        frozen = {**frozen, NO_TEXT: no_text_of(config, text_width)}
    noise = schedule_of(config)
    return Denoising(
        name=config.stage,
        model=told_steps(model_of(config), noise, config),
        shape=shape,
        conditions=tuple(conditions),
        schedule=noise,
        predict=config.diffusion.predict,
        weighting=config.diffusion.weighting,
        times=times_of(config),
        settings=settings_of(config),
        learning=learning_of(config),
        crop_px=crop_px if crop_px < size_px else 0,
        of="image" if space is None else LATENT,
        space=space,
        frozen=frozen,
    )


def prior_of(config: ConfigDict, conditions: Sequence[Condition]) -> DiffusionPrior:
    """The task of a diffusion prior, which is told a text and its vector."""
    width = config.vectors.width
    return DiffusionPrior(
        name=config.stage,
        model=model_of(config),
        shape=(width,),
        conditions=(*conditions, TextVector(width)),
        schedule=schedule_of(config),
        predict=config.diffusion.predict,
        weighting=config.diffusion.weighting,
        times=times_of(config),
        settings=settings_of(config),
        learning=learning_of(config),
        of=IMAGE_VECTOR,
        scale=vectors.scale_of(config),
        best_of=config.sample.best_of,
    )


def told_steps(model: Told, noise: Schedule, config: ConfigDict) -> Told:
    """The network, which is told steps if it takes them and the noise is that of a table."""
    count = config.model.get(STEPS, 0)
    told = config.model.kind == "latent_unet" or count
    if not told or config.diffusion.schedule not in ON_TABLES:
        return model
    table = on_grid(noise)
    steps = steps_of(table, count / len(table)) if count else steps_of(table)
    return model.clone(steps=steps)  # type: ignore[attr-defined]


def embeds_blank(config: ConfigDict) -> bool:
    """Whether no text is the embedding of the empty text, as for Stable Diffusion's encoder."""
    return "text" in config and config.text.encoder.startswith(STABLE_DIFFUSION)


def no_text_of(config: ConfigDict, width: int) -> jax.Array | jax.ShapeDtypeStruct:
    """The embedding [l d] of the empty text; its shape if no encoder is named, as in plans."""
    length = config.text.max_tokens
    if config.text.encoder == STABLE_DIFFUSION:
        return jax.ShapeDtypeStruct((length, width), jnp.float32)
    return texts.encoder_of(config).encode([""], length)[0][0].astype(jnp.float32)


def schedule_of(config: ConfigDict) -> Schedule:
    """The noise schedule of the picture that is learned."""
    name, shift = config.diffusion.schedule, config.diffusion.shift
    low, high = config.diffusion.logsnr_min, config.diffusion.logsnr_max
    require(low < high, "diffusion.logsnr_min", low, f"must be below logsnr_max, {high}")
    require(shift > 0, "diffusion.shift", shift, "must be above 0; 1 is none")
    zero_snr = config.diffusion.zero_snr
    require(
        not zero_snr or name in WITH_ZERO_SNR,
        "diffusion.zero_snr",
        zero_snr,
        f"{name} ends where logsnr_min says; allowed with schedule {', '.join(WITH_ZERO_SNR)}",
    )
    if name not in WITH_ENDS:
        return _schedule(name, shift, zero_snr=zero_snr, num_steps=num_steps_of(config))
    return _schedule(name, shift, (TERMINAL_LOGSNR if zero_snr else low, high))


def num_steps_of(config: ConfigDict) -> int:
    """T of the schedule's table: `diffusion.num_levels` of a discrete chain, else 1000."""
    if not config.diffusion.discrete:
        return TABLE_STEPS
    name, count = config.diffusion.schedule, config.diffusion.num_levels
    allowed = f"needs a schedule with a table: {', '.join(ON_TABLES)}"
    require(name in ON_TABLES, "diffusion.discrete", True, f"{allowed}; here is {name}")
    fewest = FEWEST.get(name, 2)
    what = f"at least {fewest} for a discrete {name} chain, whose last beta is 20 / num_levels"
    require(count >= fewest, "diffusion.num_levels", count, what)
    return int(count)


@functools.lru_cache(maxsize=64)
def _schedule(
    name: str,
    shift: float = 1.0,
    ends: tuple[float, float] | None = None,
    zero_snr: bool = False,
    num_steps: int = TABLE_STEPS,
) -> Schedule:
    """A cached schedule: equal values give the same object, so equal configs give equal tasks."""
    options: dict[str, float] = {}
    if ends is not None:
        options = dict(zip(("logsnr_min", "logsnr_max"), ends, strict=True))
    if zero_snr:
        options["zero_snr"] = True
    if num_steps != TABLE_STEPS:
        options["num_steps"] = num_steps
        usual = inspect.signature(schedule.SCHEDULES[name]).parameters
        # a chain of other steps has the same noise in all (Nichol & Dhariwal 2021)
        scaled = {key: TABLE_STEPS / num_steps * usual[key].default
                  for key in ("beta_min", "beta_max") if key in usual}  # fmt: skip
        options |= scaled
    made = schedule.SCHEDULES[name](**options)
    return made if shift == 1 else schedule.shifted(made, shift)


def times_of(config: ConfigDict) -> TimeSampler | Importance:
    """How noise levels are drawn; by importance, the bins of its history are `num_levels`."""
    name = config.diffusion.times
    if name == LOGIT_NORMAL:
        return logit_normal(config.diffusion.times_mean, config.diffusion.times_std)
    return Importance(config.diffusion.num_levels) if name == IMPORTANCE else TIMES[name]


def learning_of(config: ConfigDict) -> Learning:
    """The choices of what is learned beside x_0, and of how errors count."""
    return Learning(**{name: config.diffusion[name] for name in Learning.__dataclass_fields__})


def settings_of(config: ConfigDict) -> SampleSettings:
    """The settings with which the stage is sampled."""
    fields = SampleSettings.__dataclass_fields__
    return SampleSettings(**{name: config.sample[name] for name in fields if name in config.sample})
