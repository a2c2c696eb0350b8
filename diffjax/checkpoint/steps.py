"""The steps in a folder: list them, choose those to delete, remove the leftovers of a crash."""

import contextlib
import shutil
import time
import uuid
from collections.abc import Callable, Collection
from pathlib import Path

from diffjax.checkpoint import manifest
from diffjax.checkpoint.manifest import FOREIGN, GOOD, INCOMPLETE, UNVERIFIED, StepReport

# In the names of folders: a step that orbax has not finished, and a step that is being deleted.
UNFINISHED, LEAVING = ".orbax-checkpoint-tmp", ".removed-"
# A step of another run, or under another number, whose place was needed.
ASIDE = ".foreign-"


def steps_in(directory: Path) -> list[int]:
    """The numbers of all steps in the folder, in order and in any state."""
    if not directory.is_dir():
        return []
    names = [path.name for path in directory.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def survey(
    directory: Path,
    *,
    full: bool = False,
    look: Callable[..., StepReport] = manifest.inspect,
) -> list[StepReport]:
    """Every step in the folder with its state, in order. full: check hashes, not only sizes.

    look: how a step is looked at; `reading.inspect` also looks at the state itself.
    """
    found = []
    for step in steps_in(directory):
        with contextlib.suppress(FileNotFoundError):  # a trainer may delete it meanwhile
            found.append(look(directory / str(step), full=full))
    return found


def remove(directory: Path, step: int) -> None:
    """Delete a step. It is renamed first, so that a half-deleted step is never taken for one."""
    leaving = directory / f"{step}{LEAVING}{uuid.uuid4().hex[:8]}"
    (directory / str(step)).rename(leaving)
    _delete(leaving)


def set_aside(directory: Path, step: int, why: str) -> None:
    """Rename a foreign step, whose place is needed. It may be whole, so it is not deleted."""
    aside = directory / f"{step}{ASIDE}{uuid.uuid4().hex[:8]}"
    (directory / str(step)).rename(aside)
    print(f"{directory}: step {step} was in the way ({why}); it is {aside.name} now", flush=True)


def delete_leftovers(directory: Path, step: int | None = None) -> None:
    """Delete what interrupted saves and removals left behind, of all steps or of one."""
    for suffix in (UNFINISHED, LEAVING):
        for path in directory.glob(f"{'*' if step is None else step}{suffix}*"):
            _delete(path)


def _delete(path: Path) -> None:
    """Delete a folder. Try again for a second: threads of a failed save may still write to it."""
    for _ in range(20):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.05)


def steps_to_prune(found: Collection[StepReport], keep: int, keep_every: int) -> list[int]:
    """The steps to delete: all but the newest `keep` complete steps and every `keep_every`-th step.

    A damaged or incomplete step is not counted, and is deleted once a complete step is newer. The
    newest complete step always stays, and so does a foreign one, which somebody put there.
    """
    complete = sorted(f.step for f in found if f.state in (GOOD, UNVERIFIED))
    if not complete:
        return []
    kept = set(complete[-max(keep, 1) :])
    if keep_every:
        kept |= {step for step in complete if step % keep_every == 0}
    ours = {f.step for f in found if f.step <= complete[-1] and f.state != FOREIGN}
    return sorted(ours - kept)


def incomplete_steps(found: Collection[StepReport]) -> list[int]:
    """The incomplete steps, if there is a good step to resume from; else none."""
    if not any(f.state == GOOD for f in found):
        return []
    return [f.step for f in found if f.state == INCOMPLETE]
