"""How a run spent its time: a stopwatch whose seconds are kept over restarts."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict, cast

from diffjax.core.errors import StorageError
from diffjax.core.files import read_json, set_aside, side_output, write_whole
from diffjax.core.json_types import Json, JsonObject
from diffjax.core.tables import align_columns

# A process does one kind of WORK at a time. Only the next process can measure what was LOST.
WORK = ("start", "compile", "data", "step", "checkpoint", "sample")
LOST = ("redone", "down")
MEANING = {
    "start": "reading, encoding captions, restoring",
    "compile": "XLA compiling the training step",
    "data": "waiting for a batch",
    "step": "training",
    "checkpoint": "handing the state to the writer, and waiting for it at the end",
    "sample": "grids of pictures, evaluations",
    "redone": "work after the last good checkpoint, done again",
    "down": "between the end of one process and the start of the next",
}
# Work that a resumed process does again, where it was done after the last checkpoint.
TRAINING = ("compile", "data", "step")
KEPT_SAVES = 100
STEP = re.compile("[0-9]{1,18}", re.ASCII)


class Note(TypedDict):
    """The content of goodput.json.

    written: when, in seconds since 1970. seconds: by kind, until then. saves: by the step of a
    checkpoint, the seconds by kind until its save.
    """

    written: float
    seconds: dict[str, float]
    saves: dict[str, dict[str, float]]


class Goodput:
    """Measures the seconds of each kind of work, over all the processes of a run.

    path: the JSON file that holds them between processes; None writes no file. clock: monotonic
    seconds of this process. wall: seconds since 1970, to measure how long no process ran.
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

    def switch_to(self, kind: str) -> None:
        """Count the seconds from now on as `kind`, one of WORK."""
        now = self._clock()
        self._here[self._kind] += max(now - self._since, 0.0)
        self._kind, self._since = kind, now

    def elapsed(self) -> float:
        """Seconds since this object was made."""
        return self._clock() - self._begun

    def training(self) -> float:
        """Seconds that this process spent in steps and in waiting for batches."""
        self.switch_to(self._kind)
        return self._here["step"] + self._here["data"]

    def seconds(self) -> dict[str, float]:
        """Seconds of the whole run, by kind, rounded to milliseconds."""
        self.switch_to(self._kind)
        return {kind: round(self._before[kind] + here, 3) for kind, here in self._here.items()}

    def resume(self, step: int) -> None:
        """Continue the count of the previous process. Its work after `step` counts as redone.

        The time without a process is measured from the last note. It is 0 if the clock went back.
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
        """Note the seconds spent until the state of `step` was saved."""
        self._saves[str(step)] = self.seconds()
        self._saves = dict(list(self._saves.items())[-KEPT_SAVES:])
        self.note()

    def note(self) -> None:
        """Write the seconds to the file, completely or not at all; a failure only warns."""
        if self._path is None:
            return
        self._count_with_the_save()
        noted = Note(written=self._wall(), seconds=self.seconds(), saves=self._saves)
        with side_output(self._path):
            write_whole(self._path, (json.dumps(noted) + "\n").encode())

    def _count_with_the_save(self) -> None:
        """Seconds between a save and the next batch are kept with it: no resume does them again.

        Such are the wait for the writer of checkpoints at the end of a run, and previews.
        """
        if not self._saves:
            return
        step, then = list(self._saves.items())[-1]
        now = self.seconds()
        if all(now[kind] == then[kind] for kind in TRAINING):
            self._saves[step] = now


def _read(path: Path | None) -> Note | None:
    """The note in the file; None if there is no file. A damaged file is set aside."""
    if path is None:
        return None
    try:
        return _checked(read_json(path, "its seconds are not counted"))
    except FileNotFoundError:
        return None
    except (ValueError, StorageError) as error:
        set_aside(path, str(error).removeprefix(f"{path}: "))
        return None


def _checked(noted: JsonObject) -> Note:
    """The note, if it is one.

    Raises:
      ValueError: a value is missing, or is not what `Goodput.note` writes there.
    """
    written, seconds, saves = (noted.get(name) for name in ("written", "seconds", "saves"))
    if not (_is_time(written) and _are_seconds(seconds) and isinstance(saves, dict)):
        raise ValueError("damaged: not the seconds of a run; its seconds are not counted")
    if not all(STEP.fullmatch(step) and _are_seconds(saved) for step, saved in saves.items()):
        raise ValueError("damaged: not the saves of a run; its seconds are not counted")
    return cast(Note, noted)


def _are_seconds(value: Json) -> bool:
    return isinstance(value, dict) and all(_is_time(value.get(kind)) for kind in (*WORK, *LOST))


def _is_time(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12


def share(seconds: dict[str, float]) -> float:
    """The share of all time, in [0, 1], that went into steps that were kept; NaN for no time."""
    total = sum(seconds.values())
    return seconds["step"] / total if total else float("nan")


def goodput_table(seconds: dict[str, float]) -> str:
    """One line for each kind: its seconds, their share of the whole, and its meaning."""
    total = sum(seconds.values())
    headline = f"goodput: {100 * share(seconds):.1f} % of {total:.1f} s went into training steps"
    rows = []
    for kind, value in seconds.items():
        part = 100 * value / total if total else 0.0
        rows.append((kind, f"{value:.1f} s", f"{part:.1f} %", MEANING[kind]))
    return "\n".join([headline, *(f"  {line}" for line in align_columns(rows, right=(1, 2)))])
