"""Save and restore, through orbax: the train state, and where the data stood."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp


def open_dir(path: Path, *, keep: int = 3) -> ocp.CheckpointManager:
    """The checkpoints under `path`, the last `keep` of which are kept; saves go on behind."""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=True, cleanup_tmp_directories=True
    )
    handlers = {"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(path.resolve(), options=options, item_handlers=handlers)


def save(manager: ocp.CheckpointManager, step: int, state: Any, data_position: dict) -> None:
    """Begin to save `state` and the position of the data; returns before the disk is done."""
    if step in manager.all_steps():
        return
    manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data_position)
        ),
    )


def restore(manager: ocp.CheckpointManager, like: Any, step: int | None = None) -> tuple[Any, dict]:
    """The state at `step` (the newest by default) in the shardings of `like`, and the position.

    `like` is a tree of arrays or ShapeDtypeStructs with shardings.

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: the checkpoint's arrays are not those of `like`, in names, shapes or dtypes.
    """
    step = manager.latest_step() if step is None else step
    if step is None:
        raise FileNotFoundError(f"no checkpoint under {manager.directory}")
    _check(manager, step, like)
    restored = manager.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(like), data=ocp.args.JsonRestore()),
    )
    return restored.state, restored.data


def _check(manager: ocp.CheckpointManager, step: int, like: Any) -> None:
    """orbax would cast a dtype without a word; we would rather stop."""
    stored = manager.item_metadata(step).state
    describe = lambda tree: {  # noqa: E731
        jax.tree_util.keystr(path, simple=True, separator="/"): (tuple(x.shape), str(x.dtype))
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }
    have, want = describe(getattr(stored, "tree", stored)), describe(like)
    for name in sorted(have.keys() | want.keys()):
        there, here = have.get(name, "missing"), want.get(name, "missing")
        if there != here:
            raise ValueError(
                f"the checkpoint {manager.directory}/{step} does not fit this model: {name} is "
                f"{there} in the checkpoint and {here} in the model"
            )
