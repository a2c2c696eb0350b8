"""Makes the task of telling the classes of noised pictures from its config."""

from collections.abc import Iterable, Mapping
from typing import cast

from ml_collections import ConfigDict

from diffjax.build.models import DTYPES, STEPS, check_levels
from diffjax.core.errors import require
from diffjax.core.types import Schedule
from diffjax.diffusion import schedule
from diffjax.diffusion.sampling.spacing import on_grid
from diffjax.diffusion.table import staircase
from diffjax.models.classifier import Classifier
from diffjax.models.layers import convolve
from diffjax.models.layers.attention import fastest_implementation
from diffjax.models.layers.level import KEPT
from diffjax.tasks.classifying import Classifying
from diffjax.tasks.task import Model

# The section by which such a config is known.
SECTION = "classifying"
CHOICES: Mapping[str, Iterable[str]] = {
    "model.kind": ("classifier",),
    "model.remat": ("none", *KEPT),
    "diffusion.schedule": schedule.SCHEDULES,
}


def is_classifying(config: ConfigDict) -> bool:
    """Whether the config trains a classifier."""
    return SECTION in config


def task_of(config: ConfigDict, noise: Schedule, model: Classifier) -> Classifying:
    """The task. noise: its schedule. model: the network, told of the noise what it is to know."""
    return Classifying(
        name=config.stage,
        model=cast(Model, model),
        size_px=config.data.size_px,
        num_classes=config.classes.num,
        names=tuple(config.classes.names),
        schedule=staircase(on_grid(noise)) if config.diffusion.discrete else noise,
    )


def model_of(config: ConfigDict) -> Classifier:
    """The network, told log SNRs."""
    fields = {name: value for name, value in config.model.items() if name not in ("kind", STEPS)}
    fields["dtype"] = DTYPES[fields["dtype"]]
    return Classifier(
        **fields,
        outputs=config.classes.num,
        attention_bias=True,
        heads_first=True,
        convolution=convolve.fastest_convolution(),
        attention_implementation=fastest_implementation(fields["dtype"]),
    )


def check(config: ConfigDict) -> None:
    """Checks what only such a config has.

    Raises:
      ConfigError: a value is not allowed.
    """
    check_levels(config.model)
    stride, size_px, crop_px = model_of(config).stride, config.data.size_px, config.data.crop_px
    halves = f"must be a multiple of {stride}: a halving for each level of model.mults but one"
    require(size_px % stride == 0, "data.size_px", size_px, halves)
    whole = "must be 0: a classifier sees whole pictures; classifying.min_crop enlarges a part"
    require(crop_px in (0, size_px), "data.crop_px", crop_px, whole)
    names, num = config.classes.names, config.classes.num
    distinct = len({name.casefold() for name in names} - {"none"})
    require(len(names) in (0, num) and distinct == len(names), "classes.names", names,
            f"none, or {num} different ones, of which none is called none")  # fmt: skip
