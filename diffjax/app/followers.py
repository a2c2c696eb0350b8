"""Which visitors still wait for what they asked for; nothing is drawn for those who have left."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

# A browser asks first, and then for the stream in which it is answered.
GRACE_S = 15.0
MOST = 10_000


class Followers:
    """The sessions that listen to their queue, or asked for something within GRACE_S."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._listening: Counter[str] = Counter()
        self._asked: dict[str, float] = {}
        self._lock = threading.Lock()

    def asked(self, session: str) -> None:
        """The session has asked for something."""
        with self._lock:
            now = self._clock()
            if len(self._asked) >= MOST:
                self._asked = {s: at for s, at in self._asked.items() if at > now - GRACE_S}
            self._asked[session] = now

    @contextlib.contextmanager
    def listening(self, session: str) -> Iterator[None]:
        """For the time in which the session listens."""
        with self._lock:
            self._listening[session] += 1
        try:
            yield
        finally:
            with self._lock:
                self._listening[session] -= 1
                if not self._listening[session]:
                    del self._listening[session]

    def waits(self, session: str | None) -> bool:
        """Whether anybody still waits; a request without a session counts as one that does."""
        if session is None:
            return True
        with self._lock:
            asked = self._asked.get(session)
            if asked is not None and self._clock() - asked > GRACE_S:
                del self._asked[session]
                asked = None
            return asked is not None or session in self._listening
