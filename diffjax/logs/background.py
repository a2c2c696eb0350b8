"""Work that must not delay training: it runs in a thread, or is dropped with a warning."""

import queue
import sys
import threading
from collections.abc import Callable


class Background:
    """Calls functions one after the other in a thread of its own.

    A call that raises or hangs does not affect the main thread. At most `depth` calls wait; more
    are dropped. The first problem prints a warning, later ones print nothing.
    """

    def __init__(self, name: str, depth: int = 256):
        self._name = name
        self._waiting: queue.Queue[Callable[[], object] | None] = queue.Queue(depth)
        self._warned = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], object]) -> None:
        """Queue a call and return at once. The call is dropped if too many wait already."""
        try:
            self._waiting.put_nowait(call)
        except queue.Full:
            self._warn("is too slow: part of it is dropped")

    def close(self, seconds: float = 5.0) -> None:
        """Wait until all queued calls are done, but not longer than `seconds`."""
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
