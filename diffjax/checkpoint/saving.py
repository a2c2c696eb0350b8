"""Save behind the training, through orbax.

A save is: orbax writes and commits; every file is hashed; the manifest is synced and renamed into
place; only then do older steps go.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from diffjax.checkpoint import folder, manifest
from diffjax.checkpoint.manifest import CORRUPT, GOOD, INCOMPLETE, UNVERIFIED, Found
from diffjax.core.errors import StorageError
from diffjax.core.files import free_bytes
from diffjax.core.tables import format_bytes
from diffjax.core.trees import named_leaves

GO, THERE, FULL = 0, 1, 2
FINISH_SECONDS = 60  # no longer does one process wait for the others, one of which may be gone


class Checkpoints:
    """The steps under a folder. Made by `open_dir` or `open_to_read`, ended by `finish` or `with`.

    keep: how many whole steps stay, None where this one only reads. keep_every: steps that it
    divides stay for good; 0 is none.
    """

    def __init__(self, directory: Path, keep: int | None, keep_every: int):
        self.directory, self.keep, self.keep_every = directory, keep, keep_every
        self._bad: dict[int, str] = {}  # what a full check found and sizes would not tell
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._error: StorageError | None = None
        self._checkpointer: ocp.AsyncCheckpointer | None = None

    def all_steps(self) -> list[int]:
        """The steps that are whole as far as their sizes tell, in order."""
        return [f.step for f in self.survey() if f.state in (GOOD, UNVERIFIED)]

    def latest_step(self) -> int | None:
        """The newest of `all_steps`."""
        return max(self.all_steps(), default=None)

    def survey(self) -> list[Found]:
        """Every step with its state, by sizes and what fuller checks found."""
        found = folder.survey(self.directory)
        return [
            Found(f.step, CORRUPT, self._bad[f.step], f.num_bytes, f.saved)
            if f.step in self._bad
            else f
            for f in found
        ]

    def __enter__(self) -> "Checkpoints":
        """Itself."""
        return self

    def __exit__(self, *_) -> None:
        """`finish`."""
        finish(self)


def open_dir(path: Path, *, keep: int = 3, keep_every: int = 0) -> Checkpoints:
    """The checkpoints under `path`, made if need be, for the one trainer that saves there.

    What an earlier save left unfinished is deleted. A reader beside a trainer uses `open_to_read`.
    """
    checkpoints = Checkpoints(path.resolve(), keep, keep_every)
    if jax.process_index() == 0:
        checkpoints.directory.mkdir(parents=True, exist_ok=True)
        folder.sweep(checkpoints.directory)
        for step in folder.cut_off(checkpoints.survey()):
            folder.remove(checkpoints.directory, step)
    return checkpoints


def open_to_read(path: Path) -> Checkpoints:
    """The checkpoints under `path`; nothing there is changed."""
    return Checkpoints(path.resolve(), None, 0)


def needed_bytes(state: Any) -> int:
    """What a checkpoint of `state` (arrays or shapes) takes on the disk, in bytes, at most."""
    leaves = named_leaves(state)
    arrays = sum(x.size * jax.dtypes.canonicalize_dtype(x.dtype).itemsize for x in leaves.values())
    return arrays + 4096 * (len(leaves) + 16)


def save(checkpoints: Checkpoints, step: int, state: Any, data_position: dict) -> None:
    """Begin to save `state` and the position of the data; returns before the disk is done.

    A step that is there and whole is left as it is; one that is not is replaced. The save before
    is waited for. Every process has to call this.

    Raises:
      StorageError: there is no room for it, or the save before failed. Older steps stay intact.
    """
    with checkpoints._lock:
        settle(checkpoints)
        assert checkpoints.keep is not None, "opened to read"
        directory, needed = checkpoints.directory, needed_bytes(state)
        verdict = agreed(lambda: _make_way(checkpoints, step, needed))
        if verdict == THERE:
            return
        if verdict == FULL:
            raise _failed(directory, step, needed, "the disk is full")
        checkpointer = checkpoints._checkpointer or ocp.AsyncCheckpointer(handler())
        checkpoints._checkpointer = checkpointer
        try:
            checkpointer.save(
                directory / str(step),
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data_position)
                ),
                custom_metadata=manifest.MARK,
            )
        except OSError as error:
            folder.sweep(directory, step)
            raise _failed(directory, step, needed, error) from None
        checkpoints._thread = threading.Thread(
            target=_complete, args=(checkpoints, checkpointer, step, needed), name="checkpoint"
        )
        checkpoints._thread.start()


def finish(checkpoints: Checkpoints) -> None:
    """Wait until all is on the disk, of all processes, manifests included.

    Raises:
      StorageError: the last save failed.
    """
    with checkpoints._lock:
        checkpointer, checkpoints._checkpointer = checkpoints._checkpointer, None
        try:
            settle(checkpoints)
        finally:
            if checkpointer is not None:
                checkpointer.close()
        if checkpointer is not None:
            wait = ocp.multihost.get_barrier_sync_fn()
            try:
                wait(key="diffjax_checkpoints", timeout_ms=FINISH_SECONDS * 1000)
            except jax.errors.JaxRuntimeError as error:
                line = str(error).splitlines()[0][:120]
                print(f"warning: the other processes' last save: {line}", flush=True)


def _make_way(checkpoints: Checkpoints, step: int, needed: int) -> int:
    """Remove a step of this number that is not whole, and look for room."""
    target = checkpoints.directory / str(step)
    if target.is_dir():
        there = manifest.inspect(target, full=False)
        if there.state in (GOOD, UNVERIFIED) and step not in checkpoints._bad:
            return THERE
        folder.remove(checkpoints.directory, step)
        checkpoints._bad.pop(step, None)
    return FULL if free_bytes(checkpoints.directory) < needed else GO


def agreed(verdict: Callable[[], int]) -> int:
    """What the first process finds, on all of them."""
    found = verdict() if jax.process_index() == 0 else 0
    if jax.process_count() == 1:
        return found
    return int(multihost_utils.broadcast_one_to_all(np.int32(found)))


def _complete(
    checkpoints: Checkpoints, checkpointer: ocp.AsyncCheckpointer, step: int, needed: int
) -> None:
    """What follows orbax's part of a save, on a thread of its own: manifest, then pruning."""
    directory, first = checkpoints.directory, jax.process_index() == 0
    try:
        checkpointer.wait_until_finished()
        if first:
            manifest.write(directory / str(step))
            for old in folder.superseded(
                checkpoints.survey(), checkpoints.keep or 1, checkpoints.keep_every
            ):
                folder.remove(directory, old)
    except Exception as error:  # orbax's, tensorstore's and the system's share no base class
        checkpoints._error = _failed(directory, step, needed, error)
        if first:  # what is unfinished holds the room that the next one needs
            folder.sweep(directory, step)
            target = directory / str(step)
            if target.is_dir() and manifest.inspect(target, full=False).state == INCOMPLETE:
                folder.remove(directory, step)


def settle(checkpoints: Checkpoints) -> None:
    """Wait for the save under way; raise what became of it (StorageError), once."""
    if checkpoints._thread is not None:
        checkpoints._thread.join()
        checkpoints._thread = None
    error, checkpoints._error = checkpoints._error, None
    if error is not None:
        raise error


def _failed(directory: Path, step: int, needed: int, why: object) -> StorageError:
    if isinstance(why, OSError) and why.strerror:
        why = why.strerror
    line = (str(why).strip().splitlines() or [type(why).__name__])[0][:200]
    return StorageError(
        f"{directory}: step {step} was not saved: {line}; "
        f"{format_bytes(free_bytes(directory))} free, {format_bytes(needed)} needed; "
        "the steps before it are intact; make room and run again"
    )


def handler() -> ocp.CompositeCheckpointHandler:
    """How a step's two parts, the state and the position of the data, lie on the disk."""
    return ocp.CompositeCheckpointHandler(
        state=ocp.StandardCheckpointHandler(), data=ocp.JsonCheckpointHandler()
    )
