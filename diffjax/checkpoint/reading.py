"""Restores checkpoints. The files are hashed first; damaged and incomplete steps are skipped."""

import dataclasses
import functools
import operator
from pathlib import Path

import jax
import numpy as np

from diffjax.checkpoint import manifest, steps
from diffjax.checkpoint.manifest import (
    CORRUPT,
    FOREIGN,
    GOOD,
    INCOMPLETE,
    UNVERIFIED,
    StepReport,
)
from diffjax.checkpoint.saving import Checkpoints, decide_on_first_process, wait_for_save
from diffjax.core.errors import StorageError
from diffjax.core.trees import PyTree, map_named, named_leaves

VERIFY = ("full", "size")


def restore(
    checkpoints: Checkpoints, like: PyTree, step: int | None = None, verify: str = "full"
) -> tuple[PyTree, dict]:
    """(the state of `step` or of the newest complete step, the position in the data).

    like: a tree of arrays or ShapeDtypeStructs with shardings; the state gets its shardings.
    verify: "full" hashes every file, "size" only compares sizes. A step that is skipped is printed
    with the reason. Every process must call this; all get the same step.

    Raises:
      FileNotFoundError: there is no checkpoint.
      StorageError: no checkpoint is complete, or `step` is not.
      ValueError: the names, shapes or dtypes of the arrays differ from those of `like`.
    """
    path = choose(checkpoints, step, verify)
    stored = _stored(path)
    _check_fits(path, stored, like)
    return _restored(path, stored, like), _position(path)


def restore_part(
    checkpoints: Checkpoints, name: str, like: PyTree, step: int | None = None, verify: str = "full"
) -> tuple[PyTree, int]:
    """(one part of the state, such as "ema_params/decay_0.9999", the step it is from).

    Only that part is read. All else is as in `restore`.
    """
    path = choose(checkpoints, step, verify)
    try:
        stored = _nest(name, _part(name, _stored(path)))
    except KeyError:
        raise ValueError(f"the checkpoint {path} holds no {name}") from None
    _check_fits(path, stored, _nest(name, like))
    return _part(name, _restored(path, stored, _nest(name, like))), int(path.name)


def read(path: Path, name: str = "") -> tuple[PyTree, dict]:
    """(the state in a step's folder as nested dicts of NumPy arrays, the position in the data).

    name: the part to read, by default the whole state. The folder is not verified here.

    Raises:
      KeyError: the state has no part of that name.
    """
    import orbax.checkpoint as ocp

    wanted = _nest(name, _part(name, _stored(path)))
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    return _part(name, _arrays(path, wanted, as_numpy)), _position(path)


def choose(checkpoints: Checkpoints, step: int | None = None, verify: str = "full") -> Path:
    """The verified folder of `step`, or of the newest complete step. Raises as `restore` does."""
    with checkpoints._lock:
        wait_for_save(checkpoints)
    errors: list[OSError] = []

    def find_step() -> int:
        try:
            return _verified(checkpoints, step, full=verify == "full")
        except (FileNotFoundError, StorageError) as error:
            errors.append(error)
            return -1 if isinstance(error, FileNotFoundError) else -2

    chosen = decide_on_first_process(find_step)
    if errors:
        raise errors[0]
    if chosen == -1:
        raise FileNotFoundError(f"no checkpoint under {checkpoints.directory}")
    if chosen == -2:
        raise StorageError(f"{checkpoints.directory}: no step is complete; process 0 says why")
    return checkpoints.directory / str(chosen)


def _verified(checkpoints: Checkpoints, step: int | None, full: bool) -> int:
    saved = steps.steps_in(checkpoints.directory)
    if not saved or (step is not None and step not in saved):
        what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        raise FileNotFoundError(f"{what} under {checkpoints.directory}")
    skipped = []
    for candidate in reversed(saved) if step is None else [step]:
        found = inspect(checkpoints.directory / str(candidate), full=full)
        if found.state in (GOOD, UNVERIFIED):
            if found.state == UNVERIFIED:
                print(f"warning: step {candidate} cannot be verified: {found.why}", flush=True)
            return candidate
        skipped.append(found)
        if found.state in (CORRUPT, FOREIGN):
            checkpoints._bad[candidate] = found
        print(f"step {candidate} is {found.state}, skipped: {found.why}", flush=True)
    if step is None and all(found.state == INCOMPLETE for found in skipped):
        raise FileNotFoundError(f"no checkpoint under {checkpoints.directory} was finished")
    raise StorageError(
        f"{checkpoints.directory}: step {skipped[-1].step} is {skipped[-1].state} "
        f"({skipped[-1].why})"
        + ("" if step is not None else ", and no other step is complete")
        + ": restore it from a copy, or move it away to start from the beginning"
    )


def inspect(folder: Path, *, full: bool) -> StepReport:
    """The state of a step, as `manifest.inspect` has it, also where its manifest has no number.

    Then the step that the state itself has counts, as it is saved with the parameters.
    """
    found = manifest.inspect(folder, full=full)
    if found.named or found.state not in (GOOD, UNVERIFIED):
        return found
    within = _step_within(folder)
    if within in (None, found.step):
        return found
    why = f"it is step {within} in a folder that was renamed or copied"
    return dataclasses.replace(found, state=FOREIGN, why=why)


def _step_within(folder: Path) -> int | None:
    """The step that the state in a folder has; None if it has none or cannot be read."""
    try:
        return int(read(folder, "step")[0])
    except (KeyError, TypeError, ValueError, OSError):
        return None


def _part(name: str, tree: PyTree) -> PyTree:
    """The part of a tree with the path `name`, such as "params/norm"."""
    return functools.reduce(operator.getitem, filter(None, name.split("/")), tree)


def _nest(name: str, part: PyTree) -> PyTree:
    """The tree that has only this part, at the path `name`."""
    keys = [key for key in name.split("/") if key]
    return functools.reduce(lambda tree, key: {key: tree}, reversed(keys), part)


def _restored(path: Path, stored: PyTree, like: PyTree) -> PyTree:
    """The state with the structure of `like`; leaves are matched by name, as orbax stores dicts."""
    import orbax.checkpoint as ocp

    wanted = named_leaves(like)
    target = map_named(lambda name, _: wanted[name], stored)
    found = named_leaves(_arrays(path, target, ocp.checkpoint_utils.construct_restore_args(target)))
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in wanted])


def _arrays(path: Path, tree: PyTree, options: PyTree) -> PyTree:
    """The arrays of the step's state that are in `tree`; options: orbax's RestoreArgs for each."""
    import orbax.checkpoint as ocp

    arguments = ocp.args.PyTreeRestore(tree, restore_args=options, partial_restore=True)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        return checkpointer.restore(path / "state", args=arguments)


def _position(path: Path) -> dict:
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
        return checkpointer.restore(path / "data", args=ocp.args.JsonRestore())


def _stored(path: Path) -> PyTree:
    """The shapes and dtypes of a step's arrays, as a tree, from orbax's metadata."""
    import orbax.checkpoint as ocp

    stored = ocp.PyTreeCheckpointHandler().metadata(path / "state")
    return getattr(stored, "tree", stored)


def _check_fits(path: Path, stored: PyTree, like: PyTree) -> None:
    """Raise a ValueError if names, shapes or dtypes differ; orbax would cast dtypes silently."""
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
