"""The errors that end a command early, and their exit codes."""

from typing import ClassVar

# Launchers never try 2, 3 and 4 again.
EXIT_MISSING, EXIT_INPUT, EXIT_TOO_BIG, EXIT_DIVERGED, EXIT_STORAGE = 1, 2, 3, 4, 5
EXIT_TERMINATED = 143


class Ending(Exception):
    """Ends a command with one line for its user and an exit code; not a mistake of ours."""

    exit_code: ClassVar[int] = 1

    def line(self) -> str:
        """What the user is told."""
        return str(self)


class ConfigError(Ending, ValueError):
    """A mistake in a config or a flag: the key, the value seen, what is allowed. Exit code 2."""

    exit_code = EXIT_INPUT

    def __init__(self, key: str, value: object, allowed: str):
        super().__init__(f"config error: {key} = {value!r}: {allowed}")


class InputError(Ending, ValueError):
    """A file or a flag that cannot be used, in a line that says why. Exit code 2."""

    exit_code = EXIT_INPUT


class StorageError(Ending, OSError):
    """The disk took no more, or gave back other bytes; what is whole stays. Exit code 5.

    Complete files stay. The message is one line with the file or folder, the fault and the remedy.
    """

    exit_code = EXIT_STORAGE


class Terminated(Ending):
    """A signal came, or nobody reads what is printed; the finished step is saved. Exit code 143."""

    exit_code = EXIT_TERMINATED


class OutOfTime(Ending):
    """`train.max_seconds` are over; the finished step is saved. Run again to go on. Exit code 0."""

    exit_code = 0


class Diverged(Ending):
    """The loss or a gradient is no longer a number; the last checkpoint is finite. Exit code 4."""

    exit_code = EXIT_DIVERGED

    def line(self) -> str:
        """Begins with what happened."""
        return f"diverged: {self}"


def require(holds: bool, key: str, value: object, allowed: str) -> None:
    """Raise a ConfigError unless `holds`."""
    if not holds:
        raise ConfigError(key, value, allowed)
