"""Who may log in: the password from a file or the environment, and how often it may be tried."""

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from diffjax.core.errors import ConfigError, require

# The environment variable with USER:PASSWORD.
AUTH = "DIFFJAX_AUTH"
WINDOW_S = 60.0
# So many wrong passwords are taken in that time, from one address and from all together.
PER_ADDRESS, ALTOGETHER = 10, 100


class Attempts:
    """The attempts to log in of the last WINDOW_S seconds that did not succeed, or not yet."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._made: deque[tuple[float, str]] = deque()

    def begin(self, address: str) -> bool:
        """Counts an attempt; False if it is one too many, which counts no more."""
        now = self._clock()
        while self._made and self._made[0][0] < now - WINDOW_S:
            self._made.popleft()
        mine = sum(whose == address for _, whose in self._made)
        if mine >= PER_ADDRESS or len(self._made) >= ALTOGETHER:
            return False
        self._made.append((now, address))
        return True

    def succeeded(self, address: str) -> None:
        """The last attempt from the address had the right password: it does not count."""
        for attempt in reversed(self._made):
            if attempt[1] == address:
                self._made.remove(attempt)
                return


def login(text: str | None, file: Path | None) -> tuple[str, str] | None:
    """(user, password) of the flags or of the environment; None if there is none.

    The variable is deleted, so that no process that this one starts has it.

    Raises:
      ConfigError: the file cannot be read, two of the three are given, or one has no USER:PASSWORD.
        The message does not repeat the password.
    """
    told = os.environ.pop(AUTH, None)
    given = {"--auth": text, "--auth-file": file, AUTH: told}
    named = [name for name, value in given.items() if value is not None]
    require(len(named) <= 1, " and ".join(named), "...", "want one of them")
    if not named:
        return None
    if file is not None:
        try:
            text = file.read_text().strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not a text"
            raise ConfigError("--auth-file", str(file), why) from None
    user, _, password = (text or told or "").partition(":")
    require(bool(user and password), named[0], "...", "want USER:PASSWORD")
    return user, password
