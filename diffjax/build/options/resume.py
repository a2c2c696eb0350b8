"""Checks that a config can continue the run of a workdir, before anything is loaded."""

from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from diffjax.build.options import config
from diffjax.core.errors import ConfigError
from diffjax.core.tables import align_columns

# Keys that must not change when a run is continued, because its checkpoint would not fit.
FIXED = (
    "model", "diffusion", "text", "tokens", "classes.num", "embedding", "mask", "low_res",
    "contrastive.loss", "contrastive.noised", "latent.factor", "latent.channels", "latent.mark",
    "latent.scale", "latent.shift", "optim.name", "lora.rank", "lora.alpha", "lora.targets",
    "lora.checkpoint", "vectors.width", "vectors.scale", "vectors.mark", "distil.checkpoint",
    "distil.teacher_steps", "distil.guidance_weight",
    "autoregressive.components", "autoregressive.buckets", "autoregressive.dots",
    "autoregressive.mark",
    "data.size_px", "train.ema",
)  # fmt: skip
# Of these, the ones that no checkpoint depends on: where an encoder lies, how a network computes.
FREE = ("model.dtype", "model.remat", "text.encoder", "embedding.encoder")


class Change(NamedTuple):
    """A key whose value differs from that with which the run was started."""

    key: str
    before: object
    now: object


def allowed_changes(options: ConfigDict, workdir: Path) -> list[Change]:
    """The changes since the run in `workdir` was last started, all of which are allowed.

    Keys that only one of the two configs has, because it is of another version, are ignored.

    Raises:
      ConfigError: a change is not allowed; the message shows old and new values in two columns.
    """
    before, now = begun(workdir), dict(config.leaves(options))
    changed = [Change(k, before[k], now[k]) for k in now if k in before and before[k] != now[k]]
    refused = [c for c in changed if c.key.startswith(FIXED) and not _allowed(c, options)]
    if refused:
        first = refused[0]
        raise ConfigError(
            first.key,
            first.now,
            f"{workdir} was begun with {first.before!r}; {_hint(refused)}\n{change_table(refused)}",
        )
    return changed


def begun(workdir: Path) -> dict[str, object]:
    """The values of all keys with which the run in the workdir was begun; {} if there is none."""
    path, copy = workdir / "config.json", config.copy_of(workdir)
    if not path.exists() and copy is None:
        return {}
    before = dict(config.leaves(config.restore(path)))
    if copy is not None:  # the checkpoint knows best what it was trained with
        before |= {key: value for key, value in config.leaves(copy) if is_bound(key)}
    return before


def check_copy(options: ConfigDict, workdir: Path, step: int) -> None:
    """Refuse a config.json with another network than the checkpoint was trained with.

    Raises:
      ConfigError: names the key, and both values.
    """
    copy = config.copy_of(workdir, step)
    trained = {} if copy is None else dict(config.leaves(copy))
    for key, value in config.leaves(options):
        bound = is_bound(key) and not key.startswith("train.")
        if bound and key in trained and trained[key] != value:
            raise ConfigError(
                key,
                value,
                f"stands in {workdir / 'config.json'}, and its step {step} was trained with "
                f"{trained[key]!r}; delete that file, and the copy in the checkpoint is used",
            )


def is_bound(key: str) -> bool:
    """Whether a checkpoint depends on the key."""
    return key.startswith(FIXED) and key not in FREE


def _allowed(change: Change, options: ConfigDict) -> bool:
    return change.key == "model.dtype" and options.train.allow_dtype_change


def _hint(refused: list[Change]) -> str:
    if all(change.key == "model.dtype" for change in refused):
        return "name another workdir, or go on with --config.train.allow_dtype_change=true"
    return "name another workdir, or the old values"


def change_table(changes: list[Change]) -> str:
    """A line for each key: the value with which the run was started, and the value now."""
    rows = [("key", "begun with", "now")]
    rows += [(c.key, repr(c.before), repr(c.now)) for c in changes]
    return "\n".join(f"  {line}" for line in align_columns(rows))
