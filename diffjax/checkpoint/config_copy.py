"""The copies of config.json in the checkpoints, for when the one of the run is damaged or gone."""

import functools
import sys
from pathlib import Path

from diffjax.checkpoint import manifest, steps
from diffjax.checkpoint.saving import CONFIG
from diffjax.core.files import parse_json_object
from diffjax.core.json_types import JsonObject


def newest(workdir: Path, step: int | None = None) -> JsonObject | None:
    """The config of `step`, or of the newest step whose copy is as it was written.

    None if there is none, as in workdirs of version 0.1.0.
    """
    directory = workdir / "checkpoints"
    for one in reversed(steps.steps_in(directory)) if step is None else [step]:
        content = manifest.read(directory / str(one), CONFIG)
        if content is not None:
            return parse_json_object(content)
    return None


def instead_of(workdir: Path, error: Exception) -> JsonObject | None:
    """The newest copy in the place of a config.json that cannot be read, with a warning."""
    found = newest(workdir)
    if found is not None:
        why = "is gone" if isinstance(error, FileNotFoundError) else str(error).partition(";")[0]
        _warn(f"warning: {workdir / CONFIG} {why}: the copy in its newest checkpoint is used")
    return found


@functools.cache
def _warn(line: str) -> None:
    """Print a line once, however often the config is asked for."""
    print(line, file=sys.stderr, flush=True)
