"""Loads a CLIP that was trained here, from its workdir or its export."""

from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from diffjax.build.kinds import contrastive, lora
from diffjax.build.options import config
from diffjax.build.stages import places
from diffjax.core import digest
from diffjax.core.json_types import JsonObject
from diffjax.encoders.clip.encoder import Clip


@dataclass(frozen=True)
class LoadedClip:
    """A trained CLIP with its config. step, average: of the checkpoint."""

    options: ConfigDict
    clip: Clip
    step: int | str
    average: str


def load(place: Path, ema: str | None = None, verify: str = "full") -> LoadedClip:
    """The CLIP of a workdir or of an export.

    Raises:
      ConfigError: it has no checkpoint or no such average.
      StorageError: a checkpoint is damaged.
    """
    options = places.options_of(place)
    with config.interpreting(place):
        task, words = contrastive.task_of(options), contrastive.words_of(options)
    params, step, average = lora.params_of(options, place, task, ema, verify)
    params = contrastive.whole(options, params)
    print(f"{options.stage}: step {step} of {place}, {average}")
    # as it was before there were the last fields, so that fingerprints of older CLIPs stay
    sizes = (
        repr(task.model.config)
        .replace(", noised=False", "")
        .replace(", backbone='', told=None", "")
    )
    whose: JsonObject = {"model": sizes, "vocabulary": words.fingerprint}
    mark = digest.digest_of(params, whose)
    clip = Clip(options.stage, task.model.config, mark, words, lambda: params)
    return LoadedClip(options, clip, step, average)
