"""The progress of long work: a bar on a terminal, a line now and then in a file."""

import sys
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from diffjax.core.tables import format_duration

BAR_CHARACTERS = 24
SECONDS_BETWEEN_LINES = 10.0


@runtime_checkable
class Stream(Protocol):
    """The part of a text file, such as `sys.stderr`, that progress is printed to."""

    def write(self, text: str, /) -> int:
        """Write the text; returns its length."""

    def flush(self) -> None:
        """Show what has been written."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""


class Progress:
    """Counts up to `total` pieces, and prints the time left once a rate can be measured.

    The first `warm` pieces do not count for the rate: they come together, after compiling.
    `stream` is stderr by default; `clock` returns seconds.
    """

    def __init__(
        self,
        total: int,
        noun: str = "pictures",
        warm: int = 1,
        stream: Stream | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._noun, self._warm, self._clock = total, noun, warm, clock
        self._stream = stream or sys.stderr
        self._bar = self._stream.isatty()
        self._done, self._skipped = 0, 0
        self._start = self._printed_at = clock()
        self._first: tuple[int, float] | None = None

    def __enter__(self) -> "Progress":
        """Print the empty bar."""
        if self._bar:
            self._print("\r" + self._line())
        return self

    def __exit__(self, *_) -> None:
        """Move the terminal to a new line."""
        if self._bar:
            self._print("\n")

    def skip(self, count: int) -> None:
        """Count pieces that existed already. They are left out of the rate."""
        self._done += count
        self._skipped += count

    def tick(self, count: int = 1) -> None:
        """Count `count` more finished pieces."""
        now = self._clock()
        self._done += count
        if self._bar:
            self._print("\r" + self._line(now) + "\x1b[K")
        elif (
            self._done - self._skipped == count
            or self._done == self._total
            or now - self._printed_at >= SECONDS_BETWEEN_LINES
        ):
            self._printed_at = now
            self._print(self._line(now) + "\n")
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
        """Seconds left, by the rate of the pieces after the warm ones; None without a rate."""
        if self._first is None or self._done in (self._first[0], self._total):
            return None
        pieces, since = self._done - self._first[0], max(now - self._first[1], 0.0)
        return (self._total - self._done) * since / pieces

    def _print(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
