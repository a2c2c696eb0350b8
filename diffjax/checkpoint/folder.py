"""A folder of steps: which are there, which go, and what a crash left behind."""

import contextlib
import shutil
import time
import uuid
from collections.abc import Collection
from pathlib import Path

from diffjax.checkpoint import manifest
from diffjax.checkpoint.manifest import GOOD, INCOMPLETE, UNVERIFIED, Found

# How orbax names a step that it has not finished, and we one that is on its way out.
UNFINISHED, LEAVING = ".orbax-checkpoint-tmp", ".removed-"


def steps_in(directory: Path) -> list[int]:
    """The numbers of all steps there, whatever their state, in order."""
    if not directory.is_dir():
        return []
    names = [path.name for path in directory.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def survey(directory: Path, *, full: bool = False) -> list[Found]:
    """Every step there with its state, in order: by sizes, or in full by hashes."""
    found = []
    for step in steps_in(directory):
        with contextlib.suppress(FileNotFoundError):  # a trainer may prune while we look
            found.append(manifest.inspect(directory / str(step), full=full))
    return found


def remove(directory: Path, step: int) -> None:
    """Take the step away: from one moment to the next, then its bytes."""
    leaving = directory / f"{step}{LEAVING}{uuid.uuid4().hex[:8]}"
    (directory / str(step)).rename(leaving)
    _delete(leaving)


def sweep(directory: Path, step: int | None = None) -> None:
    """Delete what saves and removals that were cut off left: all, or those of one step."""
    for suffix in (UNFINISHED, LEAVING):
        for path in directory.glob(f"{'*' if step is None else step}{suffix}*"):
            _delete(path)


def _delete(path: Path) -> None:
    """The folder and all in it; threads of a save that failed may still be putting files there."""
    for _ in range(20):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.05)


def superseded(found: Collection[Found], keep: int, keep_every: int) -> list[int]:
    """The steps to remove: all but the newest `keep` whole ones and every `keep_every`-th step.

    Steps that are not whole count for nothing, and go once a whole one is newer than they. The
    newest whole step always stays.
    """
    whole = sorted(f.step for f in found if f.state in (GOOD, UNVERIFIED))
    if not whole:
        return []
    kept = set(whole[-max(keep, 1) :])
    if keep_every:
        kept |= {step for step in whole if step % keep_every == 0}
    return sorted(f.step for f in found if f.step <= whole[-1] and f.step not in kept)


def cut_off(found: Collection[Found]) -> list[int]:
    """The incomplete steps, where a good one is there to go on from."""
    if not any(f.state == GOOD for f in found):
        return []
    return [f.step for f in found if f.state == INCOMPLETE]
