"""Work that must not hold up training: done behind it, or dropped with a warning."""

import queue
import sys
import threading
from collections.abc import Callable


class Background:
    """Calls functions one after the other in a thread; a call that raises or hangs harms nobody.

    At most `depth` calls wait; the next ones are dropped. One warning is printed, whatever goes
    wrong and however often.
    """

    def __init__(self, name: str, depth: int = 256):
        self._name = name
        self._waiting: queue.Queue[Callable[[], object] | None] = queue.Queue(depth)
        self._warned = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], object]) -> None:
        """Have it called soon, if there is room; returns at once."""
        try:
            self._waiting.put_nowait(call)
        except queue.Full:
            self._warn("is too slow: what does not fit is dropped")

    def close(self, seconds: float = 5.0) -> None:
        """Let the calls that wait be done, but do not wait longer than this for them."""
        try:
            self._waiting.put(None, timeout=seconds)
            self._thread.join(seconds)
        except queue.Full:
            pass
        if self._thread.is_alive():
            self._warn("hangs: its last part is lost")

    def _run(self) -> None:
        while (call := self._waiting.get()) is not None:
            try:
                call()
            except Exception as error:
                self._warn(f"failed ({type(error).__name__}: {error}): part of it is lost")

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            print(f"warning: {self._name} {what}; training goes on", file=sys.stderr, flush=True)
