"""The trained stages that a report is about, and how the report is to be made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
from ml_collections import ConfigDict

import diffjax
from diffjax.build import config, loading, places, tasks, texts
from diffjax.core.json_types import JsonObject
from diffjax.encoders.text import Reads
from diffjax.generation.chain import TrainedStage
from diffjax.generation.recipe import Origin, settings_to_json


@dataclass(frozen=True)
class Loaded:
    """A trained stage with its config. encoder: None if it has no text condition."""

    options: ConfigDict
    stage: TrainedStage
    origin: Origin
    encoder: Reads | None


@dataclass(frozen=True)
class Asked:
    """How a report is made. num, seed, split: None means the value of each stage's config.

    classifier: the file of the network that tells emoji apart; if missing, it is trained first. The
    rest is of sets of pictures. seeds: each makes a set of its own; () for `seed` alone. extractor:
    of their features. clip: of the scores by captions. against: the source of the real pictures, or
    a file of statistics; None for those of the captions. any_count: take all of them, and not as
    many as are made. statistics: the file to write, if any.
    """

    num: int | None
    seed: int | None
    split: str | None
    classifier: Path
    seeds: tuple[int, ...] = ()
    extractor: str = "lite0"
    clip: str | None = None
    against: str | None = None
    any_count: bool = False
    statistics: Path | None = None


def load(dirs: Sequence[Path], ema: str | None = None, verify: str = "full") -> list[Loaded]:
    """The stages of these places, which need not fit together.

    Raises:
      ConfigError: one has no checkpoint or no such average.
      StorageError: a checkpoint is damaged.
    """
    encoders: dict[str, Reads | None] = {}
    loaded = []
    for place, name in zip(dirs, loading.names_of(ema, len(dirs)), strict=True):
        options = places.options_of(place)
        encoder = None
        with config.interpreting(place):
            if told := loading.told_by(options):
                key = str([options[told][part] for part in loading.TOLD[told]])
                encoder = encoders.get(key) or texts.reads_of(options)
                encoders[key] = encoder
            task = tasks.task_of(options, encoder.width if encoder else 0)
        stage, origin = loading.load_stage(options, place, task, name, verify)
        loaded.append(Loaded(options, stage, origin, encoder))
    return loaded


def no_chain(loaded: Sequence[Loaded]) -> str:
    """Why these stages cannot be run one after the other; "" if they can."""
    sides = [(one.stage.task.low_res_px, one.stage.task.size_px) for one in loaded]
    starts, ends = [start for start, _ in sides], [None, *(end for _, end in sides[:-1])]
    if starts[1:] != ends[1:] or (len(loaded) > 1 and starts[0] is not None):
        return f"stages start from {starts} px, the stages before them make {ends}"
    told = {one.encoder.fingerprint if one.encoder else "" for one in loaded}
    return "" if len(told) == 1 else "its stages are told their text by unequal encoders"


def whose(one: Loaded) -> JsonObject:
    """Where the parameters of a stage come from, and how it is sampled."""
    origin, settings = one.origin, settings_to_json(one.stage.settings)
    return {
        "name": origin.name,
        "size_px": origin.size_px,
        "step": origin.step,
        "average": origin.average,
        "checkpoint": origin.checkpoint,
        "encoder": one.encoder.fingerprint if one.encoder else None,
        "settings": settings,
    }


def made_with() -> JsonObject:
    """The versions and the platform of this process."""
    platform = jax.devices()[0].platform
    return {"diffjax": diffjax.__version__, "jax": jax.__version__, "platform": platform}
