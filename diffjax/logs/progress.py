"""How far a long piece of work has come: a bar on a terminal, plain lines in a file."""

import sys
import time
from collections.abc import Callable
from typing import Any

from diffjax.core.tables import format_duration

BAR_CHARACTERS = 24
SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts `total` pieces. The time that is left is told once there is a rate.

    The first `warm` pieces are left out of the rate: they come together, and wait for the
    compiler. `stream` is stderr by default; `clock` counts seconds.
    """

    def __init__(
        self,
        total: int,
        noun: str = "pictures",
        warm: int = 1,
        stream: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._noun, self._warm, self._clock = total, noun, warm, clock
        self._stream = stream or sys.stderr
        self._bar = self._stream.isatty()
        self._done, self._skipped = 0, 0
        self._start = self._said = clock()
        self._first: tuple[int, float] | None = None

    def __enter__(self) -> "Progress":
        """The bar at nothing."""
        if self._bar:
            self._say("\r" + self._line())
        return self

    def __exit__(self, *_) -> None:
        """Leaves the terminal on a new line."""
        if self._bar:
            self._say("\n")

    def skip(self, count: int) -> None:
        """`count` pieces are there already, and say nothing about the time."""
        self._done += count
        self._skipped += count

    def tick(self, count: int = 1) -> None:
        """`count` more pieces are done."""
        now = self._clock()
        self._done += count
        if self._bar:
            self._say("\r" + self._line(now) + "\x1b[K")
        elif (
            self._done - self._skipped == count
            or self._done == self._total
            or now - self._said >= SECONDS_BETWEEN_LINES
        ):
            self._said = now
            self._say(self._line(now) + "\n")
        if self._first is None and self._done - self._skipped >= self._warm:
            self._first = (self._done, now)

    def _line(self, now: float | None = None) -> str:
        now = self._clock() if now is None else now
        line = f"{self._done} of {self._total} {self._noun}, {format_duration(now - self._start)}"
        left = self._left(now)
        line += f", {format_duration(left)} left" if left is not None else ""
        if not self._bar:
            return line
        full = BAR_CHARACTERS * self._done // max(self._total, 1)
        return f"[{'#' * full}{'.' * (BAR_CHARACTERS - full)}] {line}"

    def _left(self, now: float) -> float | None:
        """Seconds, from the pieces after the first; None before there are any, and at the end."""
        if self._first is None or self._done in (self._first[0], self._total):
            return None
        pieces, since = self._done - self._first[0], max(now - self._first[1], 0.0)
        return (self._total - self._done) * since / pieces

    def _say(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
