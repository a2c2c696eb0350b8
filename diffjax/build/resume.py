"""May this config go on with what a workdir holds? Asked before anything is loaded or compiled."""

from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from diffjax.build import config
from diffjax.core.errors import ConfigError
from diffjax.core.tables import align_columns

# What a run may not change when it goes on: the checkpoint or its meaning would not fit.
FIXED = (
    "model", "diffusion", "text", "classes.num", "embedding", "mask", "low_res", "optim.name",
    "data.size_px", "train.ema",
)  # fmt: skip


class Change(NamedTuple):
    """A key whose value is not what the run was begun with."""

    key: str
    before: Any
    now: Any


def check(options: ConfigDict, workdir: Path) -> list[Change]:
    """What has changed since the run in `workdir` was last started, where that may change.

    A key that one of the two does not know, as it came with another version, is no change.

    Raises:
      ConfigError: something else has changed; shows what, in two columns.
    """
    path = workdir / "config.json"
    if not path.exists():
        return []
    before, now = (dict(config.leaves(c)) for c in (config.restore(path), options))
    changed = [Change(k, before[k], now[k]) for k in now if k in before and before[k] != now[k]]
    refused = [c for c in changed if c.key.startswith(FIXED) and not _allowed(c, options)]
    if refused:
        first = refused[0]
        raise ConfigError(
            first.key,
            first.now,
            f"{workdir} was begun with {first.before!r}; {_hint(refused)}\n{table(refused)}",
        )
    return changed


def _allowed(change: Change, options: ConfigDict) -> bool:
    return change.key == "model.dtype" and options.train.allow_dtype_change


def _hint(refused: list[Change]) -> str:
    if all(change.key == "model.dtype" for change in refused):
        return "name another workdir, or go on with --config.train.allow_dtype_change=true"
    return "name another workdir, or the old values"


def table(changes: list[Change]) -> str:
    """A line for each key: what the run was begun with, and what is asked for now."""
    rows = [("key", "begun with", "now")]
    rows += [(c.key, repr(c.before), repr(c.now)) for c in changes]
    return "\n".join(f"  {line}" for line in align_columns(rows))
