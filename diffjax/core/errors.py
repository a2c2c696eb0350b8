"""Why a command ends before its work is done, and the exit code that says so."""

from typing import Any

# Launchers never try 2, 3 and 4 again.
EXIT_MISSING, EXIT_INPUT, EXIT_TOO_BIG, EXIT_DIVERGED, EXIT_STORAGE = 1, 2, 3, 4, 5
EXIT_TERMINATED = 143


class ConfigError(ValueError):
    """A mistake in a config or a flag: the key, the value seen, what is allowed. Exit code 2."""

    def __init__(self, key: str, value: Any, allowed: str):
        super().__init__(f"config error: {key} = {value!r}: {allowed}")


class StorageError(OSError):
    """The disk took no more, or gave back other bytes; what is whole stays. Exit code 5.

    One line that names the file or folder, what is wrong, and the remedy.
    """


class Terminated(Exception):
    """SIGTERM or SIGINT came; the finished step is saved. Exit code 143."""


class OutOfTime(Exception):
    """`train.max_seconds` are over; the finished step is saved. Run again to go on. Exit code 0."""


class Diverged(Exception):
    """The loss or a gradient is no longer a number; the last checkpoint is finite. Exit code 4."""


class BadData(Exception):
    """A record that cannot be trained on; the finished steps are saved. Exit code 2.

    One line that names the record, what is wrong, and the remedy.
    """


def require(holds: bool, key: str, value: Any, allowed: str) -> None:
    """Raise a ConfigError unless `holds`."""
    if not holds:
        raise ConfigError(key, value, allowed)
