"""Saves checkpoints in the background, through orbax.

A save has these parts: orbax writes the step and commits it; every file is synced and hashed; the
manifest is written; only then are older steps deleted. A step also holds a copy of the run's
config.json, from which the workdir's own can be mended.
"""

import functools
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.experimental import multihost_utils

from diffjax.checkpoint import identity, manifest, steps
from diffjax.checkpoint.manifest import FOREIGN, GOOD, INCOMPLETE, UNVERIFIED, StepReport
from diffjax.checkpoint.orbax_parts import steady_deadlines, step_handler
from diffjax.core.errors import ConfigError, StorageError
from diffjax.core.files import disk_fault, free_bytes, storing
from diffjax.core.tables import format_bytes
from diffjax.core.trees import PyTree, named_leaves

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

SAVE, EXISTS, FULL = 0, 1, 2
CONFIG = "config.json"  # the copy of the run's config in a step
FINISH_SECONDS = 60  # how long a process waits for the others, some of which may have died


class Checkpoints:
    """The steps in a folder, made by `open_dir` or `open_to_read`; `finish` or `with` closes it.

    keep: how many complete steps are kept; None for a reader, which deletes none. keep_every:
    multiples of it are never deleted; 0 means that there are no such steps. config: the text of
    config.json, which each step gets a copy of; "" for none. fence: raises if this process must not
    write, because another one took over.
    """

    def __init__(
        self,
        directory: Path,
        keep: int | None,
        keep_every: int,
        config: str = "",
        fence: Callable[[], None] = lambda: None,
    ):
        self.fence = fence
        self.directory, self.keep, self.keep_every = directory, keep, keep_every
        self._config, self._run = config, ""
        # steps that a check of more than the sizes found corrupt or foreign
        self._bad: dict[int, StepReport] = {}
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._error: StorageError | ConfigError | None = None
        self._checkpointer: ocp.AsyncCheckpointer | None = None

    def all_steps(self) -> list[int]:
        """The complete steps, judged by the sizes of their files, in order."""
        return [f.step for f in self.survey() if f.state in (GOOD, UNVERIFIED)]

    def latest_step(self) -> int | None:
        """The newest of `all_steps`."""
        return max(self.all_steps(), default=None)

    def survey(self) -> list[StepReport]:
        """Every step with its state, by the sizes of its files and earlier checks of hashes."""
        return [self._bad.get(found.step, found) for found in steps.survey(self.directory)]

    def __enter__(self) -> "Checkpoints":
        """Return this object."""
        return self

    def __exit__(self, *_) -> None:
        """Call `finish`."""
        finish(self)


def open_dir(
    path: Path,
    *,
    keep: int = 3,
    keep_every: int = 0,
    config: str = "",
    fence: Callable[[], None] = lambda: None,
) -> Checkpoints:
    """The checkpoints in `path`, which is made if it does not exist, for a trainer.

    Only one trainer may save there. Unfinished steps of an earlier process are deleted. Whoever
    only reads, perhaps beside a trainer, uses `open_to_read`. config, fence: see `Checkpoints`.

    Raises:
      StorageError: the disk is full or fails.
    """
    checkpoints = Checkpoints(path.resolve(), keep, keep_every, config, fence)
    if jax.process_index() == 0:
        with storing(checkpoints.directory):
            checkpoints.directory.mkdir(parents=True, exist_ok=True)
        steps.delete_leftovers(checkpoints.directory)
        checkpoints._run = identity.establish(
            checkpoints.directory, functools.partial(_newest_run, checkpoints.directory)
        )
        for step in steps.incomplete_steps(checkpoints.survey()):
            steps.remove(checkpoints.directory, step)
    return checkpoints


def _newest_run(directory: Path) -> str:
    """The name of the run in the newest good manifest that has one; "" if none has."""
    for found in reversed(steps.survey(directory)):
        run = manifest.run_of(directory / str(found.step)) if found.state == GOOD else ""
        if run:
            return run
    return ""


def open_to_read(path: Path) -> Checkpoints:
    """The checkpoints in `path`, for reading only: nothing there is changed."""
    return Checkpoints(path.resolve(), None, 0)


def needed_bytes(state: PyTree) -> int:
    """An upper bound of the bytes of a checkpoint of `state`, a tree of arrays or shapes."""
    leaves = named_leaves(state)
    arrays = sum(x.size * jax.dtypes.canonicalize_dtype(x.dtype).itemsize for x in leaves.values())
    return arrays + 4096 * (len(leaves) + 16)


def save(
    checkpoints: Checkpoints, step: int, state: PyTree, data_position: Mapping[str, object]
) -> None:
    """Begin to save `state` and the position in the data; returns while the disk is still writing.

    First it waits for the previous save. A complete step of this number stays as it is; a damaged
    or incomplete one is replaced. Every process must call this.

    Raises:
      StorageError: there is no room, or the previous save failed. Older steps stay intact.
    """
    import orbax.checkpoint as ocp

    with checkpoints._lock:
        wait_for_save(checkpoints)
        assert checkpoints.keep is not None, "these checkpoints were opened for reading only"
        directory, needed = checkpoints.directory, needed_bytes(state)
        verdict = decide_on_first_process(lambda: _make_way(checkpoints, step, needed))
        if verdict == EXISTS:
            return
        if verdict == FULL:
            raise _failed(directory, step, needed, "the disk is full")
        steady_deadlines()
        checkpointer = checkpoints._checkpointer or ocp.AsyncCheckpointer(step_handler())
        checkpoints._checkpointer = checkpointer
        try:
            checkpointer.save(
                directory / str(step),
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state), data=ocp.args.JsonSave(data_position)
                ),
                custom_metadata=manifest.MARK,
            )
        except OSError as error:
            steps.delete_leftovers(directory, step)
            raise _failed(directory, step, needed, error) from None
        checkpoints._thread = threading.Thread(
            target=_complete, args=(checkpoints, checkpointer, step, needed), name="checkpoint"
        )
        checkpoints._thread.start()


def finish(checkpoints: Checkpoints) -> None:
    """Wait until the last save is complete, manifest included, on all processes.

    Raises:
      StorageError: the last save failed.
    """
    with checkpoints._lock:
        checkpointer, checkpoints._checkpointer = checkpoints._checkpointer, None
        try:
            wait_for_save(checkpoints)
        finally:
            if checkpointer is not None:
                checkpointer.close()
        if checkpointer is not None:
            from orbax.checkpoint import multihost

            wait = multihost.get_barrier_sync_fn()
            try:
                wait(key="diffjax_checkpoints", timeout_ms=FINISH_SECONDS * 1000)
            except jax.errors.JaxRuntimeError as error:
                line = str(error).splitlines()[0][:120]
                print(
                    f"warning: the last save of the other processes is unknown: {line}", flush=True
                )


def _make_way(checkpoints: Checkpoints, step: int, needed: int) -> int:
    """What to do with a save: delete a damaged step of this number, and check the free space."""
    checkpoints.fence()
    target = checkpoints.directory / str(step)
    if target.is_dir():
        found = manifest.inspect(target, full=False)
        if found.state in (GOOD, UNVERIFIED) and step not in checkpoints._bad:
            return EXISTS
        found = checkpoints._bad.pop(step, found)
        if found.state == FOREIGN:
            steps.set_aside(checkpoints.directory, step, found.why)
        else:
            steps.remove(checkpoints.directory, step)
    return FULL if free_bytes(checkpoints.directory) < needed else SAVE


def decide_on_first_process(decide: Callable[[], int]) -> int:
    """Call `decide` on the first process only, and return its result on all of them."""
    found = decide() if jax.process_index() == 0 else 0
    if jax.process_count() == 1:
        return found
    return int(multihost_utils.broadcast_one_to_all(np.int32(found)))


def _complete(
    checkpoints: Checkpoints, checkpointer: "ocp.AsyncCheckpointer", step: int, needed: int
) -> None:
    """The rest of a save, in a thread: wait for orbax, write the manifest, delete old steps."""
    directory, first = checkpoints.directory, jax.process_index() == 0
    try:
        checkpointer.wait_until_finished()
        if first:
            checkpoints.fence()
            if checkpoints._config:
                (directory / str(step) / CONFIG).write_text(checkpoints._config)
            manifest.write(directory / str(step), checkpoints._run)
            for old in steps.steps_to_prune(
                checkpoints.survey(), checkpoints.keep or 1, checkpoints.keep_every
            ):
                steps.remove(directory, old)
    except ConfigError as error:  # another process has taken over: what lies there is its own
        checkpoints._error = error
    except Exception as error:  # orbax and tensorstore raise many types of errors
        checkpoints._error = _failed(directory, step, needed, error)
        if first:  # free the space for the next save
            steps.delete_leftovers(directory, step)
            target = directory / str(step)
            if target.is_dir() and manifest.inspect(target, full=False).state == INCOMPLETE:
                steps.remove(directory, step)


def wait_for_save(checkpoints: Checkpoints) -> None:
    """Wait for the current save. If it failed, raise its StorageError, once."""
    if checkpoints._thread is not None:
        checkpoints._thread.join()
        checkpoints._thread = None
    error, checkpoints._error = checkpoints._error, None
    if error is not None:
        raise error


def _failed(directory: Path, step: int, needed: int, why: object) -> StorageError:
    """The error of a save, with its true cause and what helps."""
    if not directory.is_dir():
        return StorageError(
            f"{directory}: step {step} was not saved: the folder is gone; put the workdir back "
            "where it was, and run again"
        )
    fault = disk_fault(why) if isinstance(why, BaseException) else ""
    line = (str(why).strip().splitlines() or [type(why).__name__])[0][:200]
    if isinstance(why, FileNotFoundError):
        line, remedy = "a part of it was deleted while it was written", "run again"
    elif isinstance(why, TimeoutError):
        remedy = "the disk did not answer in time: look after it and run again"
    else:
        remedy = "make room and run again"
    return StorageError(
        f"{directory}: step {step} was not saved: {fault or line}; "
        f"{format_bytes(free_bytes(directory))} free, {format_bytes(needed)} needed; "
        f"the steps before it are intact; {remedy}"
    )
