"""Where the time of a run went: one stopwatch, whose seconds outlive restarts."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffjax.core.files import storing
from diffjax.core.tables import align_columns

# What a process does, one thing at a time, and what only a later one can know of it.
WORK = ("start", "compile", "data", "step", "checkpoint", "sample")
LOST = ("redone", "down")
MEANING = {
    "start": "reading, encoding captions, restoring",
    "compile": "XLA compiling the training step",
    "data": "waiting for a batch",
    "step": "training",
    "checkpoint": "handing the state to the writer, and waiting for it at the end",
    "sample": "grids of pictures",
    "redone": "work behind the last good checkpoint, done again",
    "down": "between the end of one process and the start of the next",
}
KEPT_SAVES = 100


class Goodput:
    """Seconds by what they were spent on, over all the processes of a run.

    path: the JSON file that they are kept in; None keeps them here alone. clock: monotonic seconds
    of this process. wall: seconds since 1970, to tell how long no process ran.
    """

    def __init__(
        self,
        path: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ):
        self._path, self._clock, self._wall = path, clock, wall
        self._kind, self._since = WORK[0], clock()
        self._begun = self._since
        self._here = dict.fromkeys((*WORK, *LOST), 0.0)
        self._before = dict(self._here)
        self._saves: dict[str, dict[str, float]] = {}

    def to(self, kind: str) -> None:
        """What follows is `kind`, one of WORK."""
        now = self._clock()
        self._here[self._kind] += max(now - self._since, 0.0)
        self._kind, self._since = kind, now

    def elapsed(self) -> float:
        """Seconds since this process began to count."""
        return self._clock() - self._begun

    def training(self) -> float:
        """Seconds of this process in steps and in waiting for their batches."""
        self.to(self._kind)
        return self._here["step"] + self._here["data"]

    def seconds(self) -> dict[str, float]:
        """Seconds of the whole run by kind, rounded to milliseconds."""
        self.to(self._kind)
        return {kind: round(self._before[kind] + here, 3) for kind, here in self._here.items()}

    def resume(self, step: int) -> None:
        """Take over from the process before, whose work behind `step` is to be done again.

        The time without a process is known to its last note alone; a clock set back makes it 0.
        """
        noted = _read(self._path)
        if not noted:
            return
        ended, down = noted["seconds"], self._wall() - noted["written"]
        kept = noted["saves"].get(str(step), ended) if step else {}
        self._before = {kind: kept.get(kind, 0.0) for kind in WORK}
        redone = sum(ended[kind] - self._before[kind] for kind in WORK)
        self._before["redone"] = ended["redone"] + max(redone, 0.0)
        self._before["down"] = ended["down"] + max(down - self.elapsed(), 0.0)
        self._saves = {at: saved for at, saved in noted["saves"].items() if int(at) <= step}

    def saved(self, step: int) -> None:
        """Note what had been spent when the state of `step` went to disk."""
        self._saves[str(step)] = self.seconds()
        self._saves = dict(list(self._saves.items())[-KEPT_SAVES:])
        self.note()

    def note(self) -> None:
        """Put the seconds on disk, whole or not at all.

        Raises:
          StorageError: the disk takes no more.
        """
        if self._path is None:
            return
        noted = {"written": self._wall(), "seconds": self.seconds(), "saves": self._saves}
        beside = self._path.with_suffix(".tmp")
        with storing(self._path):
            beside.write_text(json.dumps(noted) + "\n")
            os.replace(beside, self._path)


def _read(path: Path | None) -> dict[str, Any]:
    """What was noted; nothing if there is no note, or none that can be read."""
    try:
        noted = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def share(seconds: dict[str, float]) -> float:
    """The part of all time that went into steps whose result was kept, in [0, 1]; NaN of none."""
    total = sum(seconds.values())
    return seconds["step"] / total if total else float("nan")


def table(seconds: dict[str, float]) -> str:
    """A line for each kind: seconds, share of the whole, what it means."""
    total = sum(seconds.values())
    headline = f"goodput: {100 * share(seconds):.1f} % of {total:.1f} s went into training steps"
    rows = []
    for kind, value in seconds.items():
        part = 100 * value / total if total else 0.0
        rows.append((kind, f"{value:.1f} s", f"{part:.1f} %", MEANING[kind]))
    return "\n".join([headline, *(f"  {line}" for line in align_columns(rows, right=(1, 2)))])
