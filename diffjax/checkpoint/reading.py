"""Restore what is whole: the files are hashed first, and a step that is not whole passed over."""

import functools
import operator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from diffjax.checkpoint import folder, manifest
from diffjax.checkpoint.manifest import CORRUPT, GOOD, INCOMPLETE, UNVERIFIED
from diffjax.checkpoint.saving import Checkpoints, agreed, settle
from diffjax.core.errors import StorageError
from diffjax.core.trees import map_named, named_leaves

VERIFY = ("full", "size")


def restore(
    checkpoints: Checkpoints, like: Any, step: int | None = None, verify: str = "full"
) -> tuple[Any, dict]:
    """The newest whole state, or that of `step`, in the shardings of `like`; and the position.

    `like` is a tree of arrays or ShapeDtypeStructs with shardings. verify: "full" hashes every
    file, "size" only looks at their sizes. Steps that are passed over are named with the reason.
    Every process has to call this, and all get the same step.

    Raises:
      FileNotFoundError: there is no checkpoint.
      StorageError: there are some, and none is whole; or `step` is not.
      ValueError: the checkpoint's arrays are not those of `like`, in names, shapes or dtypes.
    """
    path = choose(checkpoints, step, verify)
    stored = _stored(path)
    _check_fits(path, stored, like)
    return _restored(path, stored, like), _position(path)


def restore_part(
    checkpoints: Checkpoints, name: str, like: Any, step: int | None = None, verify: str = "full"
) -> tuple[Any, int]:
    """The part `name` of the state, such as "ema_params/decay_0.9999", alone; and its step.

    Otherwise as `restore`.
    """
    path = choose(checkpoints, step, verify)
    try:
        stored = _around(name, _at(name, _stored(path)))
    except KeyError:
        raise ValueError(f"the checkpoint {path} holds no {name}") from None
    _check_fits(path, stored, _around(name, like))
    return _at(name, _restored(path, stored, _around(name, like))), int(path.name)


def read(path: Path, name: str = "") -> tuple[Any, dict]:
    """What the step's folder holds, as nested dicts of NumPy arrays; and the data's position.

    It needs no model. name: of the part to read, the whole state by default. The caller has
    verified the folder.

    Raises:
      KeyError: there is nothing of that name.
    """
    whole = _around(name, _at(name, _stored(path)))
    how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), whole)
    return _at(name, _arrays(path, whole, how)), _position(path)


def choose(checkpoints: Checkpoints, step: int | None = None, verify: str = "full") -> Path:
    """The folder of `step`, or of the newest whole step, once verified; raises as `restore`."""
    with checkpoints._lock:
        settle(checkpoints)
    errors: list[OSError] = []

    def look() -> int:
        try:
            return _verified(checkpoints, step, full=verify == "full")
        except (FileNotFoundError, StorageError) as error:
            errors.append(error)
            return -1 if isinstance(error, FileNotFoundError) else -2

    chosen = agreed(look)
    if errors:
        raise errors[0]
    if chosen == -1:
        raise FileNotFoundError(f"no checkpoint under {checkpoints.directory}")
    if chosen == -2:
        raise StorageError(f"{checkpoints.directory}: no step is whole; process 0 says why")
    return checkpoints.directory / str(chosen)


def _verified(checkpoints: Checkpoints, step: int | None, full: bool) -> int:
    steps = folder.steps_in(checkpoints.directory)
    if not steps or (step is not None and step not in steps):
        what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        raise FileNotFoundError(f"{what} under {checkpoints.directory}")
    passed = []
    for candidate in reversed(steps) if step is None else [step]:
        found = manifest.inspect(checkpoints.directory / str(candidate), full=full)
        if found.state in (GOOD, UNVERIFIED):
            if found.state == UNVERIFIED:
                print(f"warning: step {candidate} cannot be verified: {found.why}", flush=True)
            return candidate
        passed.append(found)
        if found.state == CORRUPT:
            checkpoints._bad[candidate] = found.why
        print(f"step {candidate} is {found.state}, passed over: {found.why}", flush=True)
    if step is None and all(found.state == INCOMPLETE for found in passed):
        raise FileNotFoundError(f"no checkpoint under {checkpoints.directory} was finished")
    raise StorageError(
        f"{checkpoints.directory}: step {passed[-1].step} is {passed[-1].state} "
        f"({passed[-1].why})"
        + ("" if step is not None else ", and no other is whole")
        + ": bring back a copy, or move it away to begin anew"
    )


def _at(name: str, tree: Any) -> Any:
    """The part of a tree that is called name/of/part."""
    return functools.reduce(operator.getitem, filter(None, name.split("/")), tree)


def _around(name: str, part: Any) -> Any:
    """The tree with nothing but this part, under its name."""
    keys = [key for key in name.split("/") if key]
    return functools.reduce(lambda tree, key: {key: tree}, reversed(keys), part)


def _restored(path: Path, stored: Any, like: Any) -> Any:
    """The arrays of the step's state by their names; its dicts may stand for tuples of `like`."""
    wanted = named_leaves(like)
    target = map_named(lambda name, _: wanted[name], stored)
    found = named_leaves(_arrays(path, target, ocp.checkpoint_utils.construct_restore_args(target)))
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in wanted])


def _arrays(path: Path, tree: Any, how: Any) -> Any:
    """Those arrays of the step's state that are in `tree`."""
    arguments = ocp.args.PyTreeRestore(tree, restore_args=how, partial_restore=True)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        return checkpointer.restore(path / "state", args=arguments)


def _position(path: Path) -> dict:
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
        return checkpointer.restore(path / "data", args=ocp.args.JsonRestore())


def _stored(path: Path) -> Any:
    """The tree of what the step's folder says of its arrays: shapes and dtypes."""
    stored = ocp.PyTreeCheckpointHandler().metadata(path / "state")
    return getattr(stored, "tree", stored)


def _check_fits(path: Path, stored: Any, like: Any) -> None:
    """orbax would cast a dtype without a word; we would rather stop."""
    have, want = (
        {name: (tuple(x.shape), str(x.dtype)) for name, x in named_leaves(tree).items()}
        for tree in (stored, like)
    )
    for name in sorted(have.keys() | want.keys()):
        there, here = have.get(name, "missing"), want.get(name, "missing")
        if there != here:
            raise ValueError(
                f"the checkpoint {path} does not fit this model: {name} is "
                f"{there} in the checkpoint and {here} in the model"
            )
