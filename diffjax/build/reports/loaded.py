"""The trained stages that a report is about, and how the report is to be made."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
from ml_collections import ConfigDict

import diffjax
from diffjax.build import tasks
from diffjax.build.inputs import texts
from diffjax.build.options import config
from diffjax.build.stages import loading, places
from diffjax.core.errors import require
from diffjax.core.json_types import JsonObject
from diffjax.encoders.text import Reads
from diffjax.generation.chain import TrainedStage
from diffjax.generation.recipe import Origin, settings_to_json
from diffjax.generation.rows import embedded
from diffjax.generation.telling import Tell, Teller, is_told_vectors, tell_by
from diffjax.tasks.settings import SampleSettings


@dataclass(frozen=True)
class Loaded:
    """A trained stage with its config. encoder: None if it has no text condition.

    teller: of a decoder, what tells it the vectors of pictures that it makes from prompts; None if
    there is no prior among the stages.
    """

    options: ConfigDict
    stage: TrainedStage
    origin: Origin
    encoder: Reads | None
    teller: Teller | None = None


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
    """The stages of these places that make pictures, which need not fit together.

    A prior among them tells the first one, its decoder, the vectors of pictures.

    Raises:
      ConfigError: one has no checkpoint or no such average, or a prior has no decoder.
      StorageError: a checkpoint is damaged.
    """
    encoders: dict[str, Reads | None] = {}
    loaded: list[Loaded] = []
    named = list(zip(dirs, loading.names_of(ema, len(dirs)), strict=True))
    priors = [(place, name, None) for place, name in named if places.is_prior(place)]
    pictured = [(place, name) for place, name in named if not places.is_prior(place)]
    require(bool(pictured), "WHERE", str(dirs[0]), loading.PRIOR_ALONE)
    for place, name in pictured:
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
    if priors:
        teller = loading.teller_of(loaded[0].stage.task, dirs, priors, verify)
        loaded[0] = replace(loaded[0], teller=teller)
    return loaded


def tell_of(loaded: Sequence[Loaded]) -> Tell | None:
    """What tells the first stage the vectors of its pictures; None for nothing."""
    teller = loaded[0].teller
    return None if teller is None else tell_by(teller, embedded)


def shown_vectors(loaded: Sequence[Loaded]) -> bool:
    """Whether the first stage is a decoder that nothing tells vectors but the true pictures."""
    return is_told_vectors(loaded[0].stage.task) and loaded[0].teller is None


def no_chain(loaded: Sequence[Loaded]) -> str:
    """Why these stages cannot be run one after the other; "" if they can."""
    sides = [(one.stage.task.low_res_px, one.stage.task.size_px) for one in loaded]
    starts, ends = [start for start, _ in sides], [None, *(end for _, end in sides[:-1])]
    if starts[1:] != ends[1:] or (len(loaded) > 1 and starts[0] is not None):
        return f"stages start from {starts} px, the stages before them make {ends}"
    told = {one.encoder.fingerprint for one in loaded if one.encoder}
    return "" if len(told) <= 1 else "its stages are told their text by unequal encoders"


def whose(loaded: Sequence[Loaded]) -> list[JsonObject]:
    """Where the parameters of each stage come from, and how it is sampled; of a prior first."""
    told = loaded[0].teller
    found = [_whose(one.origin, one.stage.settings, one.encoder) for one in loaded]
    if told is None or told.prior is None:
        return found
    prior = _whose(told.prior.origin, told.prior.settings, told.prior.encoder)
    return [{**prior, "clip": told.clip.fingerprint}, *found]


def _whose(origin: Origin, settings: SampleSettings, encoder: Reads | None) -> JsonObject:
    return {
        "name": origin.name,
        "size_px": origin.size_px,
        "step": origin.step,
        "average": origin.average,
        "checkpoint": origin.checkpoint,
        "encoder": encoder.fingerprint if encoder else None,
        "settings": settings_to_json(settings),
    }


def made_with() -> JsonObject:
    """The versions and the platform of this process."""
    platform = jax.devices()[0].platform
    return {"diffjax": diffjax.__version__, "jax": jax.__version__, "platform": platform}
