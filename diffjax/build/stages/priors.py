"""Loads priors, of others and those that were trained here, and makes reports on the latter."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from diffjax.build import evaluation, tasks
from diffjax.build.inputs import texts
from diffjax.build.kinds import lora
from diffjax.build.options import config
from diffjax.build.options.identity import identity
from diffjax.build.reports.loaded import made_with
from diffjax.build.stages import places
from diffjax.core import digest
from diffjax.core.errors import require
from diffjax.core.json_types import JsonObject
from diffjax.core.trees import Params
from diffjax.devices import mesh
from diffjax.tasks.task import Task


@dataclass(frozen=True)
class LoadedPrior:
    """A trained prior with its config. step, average: of the checkpoint, whose digest is `mark`."""

    options: ConfigDict
    task: Task
    params: Params
    step: int | str
    average: str
    mark: str


def load(place: Path, ema: str | None = None, verify: str = "full") -> LoadedPrior:
    """The prior of a workdir or of an export.

    Raises:
      ConfigError: it has no checkpoint or no such average.
      StorageError: a checkpoint is damaged.
    """
    options = places.options_of(place)
    with config.interpreting(place):
        task = tasks.trained_task_of(options, texts.text_width_of(options))
        whose = identity(options)
    params, step, average = lora.params_of(options, place, task, ema, verify)
    print(f"{options.stage}: step {step} of {place}, {average}")
    return LoadedPrior(options, task, params, step, average, digest.digest_of(params, whose))


def report(loaded: LoadedPrior, num: int | None, seed: int | None, split: str | None) -> JsonObject:
    """The numbers of its evaluation, and everything on which they depend.

    Raises:
      ConfigError: there is no such split, or its CLIP is not here.
      BadData: a record cannot be read.
    """
    options, place = loaded.options, mesh.make_mesh(devices=mesh.sampling_devices())
    split, count = split or options.data.validation_split, num or options.train.evaluate_examples
    encoder = texts.encoder_of(options)
    seed = options.seed if seed is None else seed
    ask = evaluation.evaluator_of(
        options, encoder, loaded.task, place, split=split, count=count, seed=seed
    )
    numbers = ask(loaded.params)
    for name, value in numbers.items():
        print(f"{options.stage}: {name} {value:.5g}", flush=True)
    return {
        "format": 1,
        "asked": {"num": num, "seed": seed, "split": split},
        "made_with": made_with(),
        "of": [
            {
                "name": options.stage,
                "step": int(loaded.step) if str(loaded.step).isdecimal() else None,
                "average": loaded.average,
                "checkpoint": loaded.mark,
                "clip": options.vectors.mark,
                "encoder": encoder.fingerprint,
            }
        ],
        "data": options.data.name,
        "examples": len(ask.examples),
        "prior": dict(numbers),
    }


def only_prior(where: Sequence[Path]) -> bool:
    """Whether the place is a prior without a decoder, which has a report of its own."""
    return len(where) == 1 and places.is_prior(where[0])


def check_flags(parts: Sequence[str], classifier: Path | None) -> None:
    """Refuses what can be asked of stages of pictures and has no effect on a prior's report.

    Raises:
      ConfigError: parts of a report, or a classifier of drawings.
    """
    allowed = "a prior has one part, its vectors: leave it out"
    require(not parts, "--parts", ",".join(parts), allowed)
    require(classifier is None, "--classifier", str(classifier), "a prior makes no pictures")
