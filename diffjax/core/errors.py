"""The errors that end a command early, and their exit codes."""

# A launcher must not try again after 2, 3 or 4: the same command would fail again.
EXIT_MISSING, EXIT_INPUT, EXIT_TOO_BIG, EXIT_DIVERGED, EXIT_STORAGE = 1, 2, 3, 4, 5
EXIT_TERMINATED = 143


class ConfigError(ValueError):
    """A config or a flag has a wrong value. Exit code 2.

    The message names the key, the value and what is allowed.
    """

    def __init__(self, key: str, value: object, allowed: str):
        super().__init__(f"config error: {key} = {value!r}: {allowed}")


class StorageError(OSError):
    """The disk is full, or returned other bytes than were written. Exit code 5.

    Complete files stay. The message is one line with the file or folder, the fault and the remedy.
    """


class Terminated(Exception):
    """SIGTERM or SIGINT arrived, and the last finished step has been saved. Exit code 143."""


class OutOfTime(Exception):
    """`train.max_seconds` have passed, and the last finished step has been saved. Exit code 0.

    The same command continues the run.
    """


class Diverged(Exception):
    """The loss or a gradient is not finite any more. Exit code 4.

    The last checkpoint holds finite numbers only.
    """


def require(holds: bool, key: str, value: object, allowed: str) -> None:
    """Raise a ConfigError unless `holds`."""
    if not holds:
        raise ConfigError(key, value, allowed)
