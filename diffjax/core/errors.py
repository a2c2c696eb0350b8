"""The errors that end a command early, and their exit codes."""

from typing import ClassVar

# A launcher must not try again after 2, 3 or 4: the same command would fail again.
EXIT_MISSING, EXIT_INPUT, EXIT_TOO_BIG, EXIT_DIVERGED, EXIT_STORAGE = 1, 2, 3, 4, 5
EXIT_TERMINATED = 143


class Ending(Exception):
    """An error that is not a mistake in this code: it ends a command with a line and a code.

    exit_code: of the process. A command prints `line()` and no traceback.
    """

    exit_code: ClassVar[int] = 1

    def line(self) -> str:
        """The line that the user reads."""
        return str(self)


class ConfigError(Ending, ValueError):
    """A config or a flag has a wrong value. Exit code 2.

    The message names the key, the value and what is allowed.
    """

    exit_code = EXIT_INPUT

    def __init__(self, key: str, value: object, allowed: str):
        shown = " ".join(repr(value).splitlines())  # that of a ConfigDict has several lines
        super().__init__(f"config error: {key} = {shown}: {allowed}")


class InputError(Ending, ValueError):
    """A file cannot be used, or something that the command needs is not installed. Exit code 2."""

    exit_code = EXIT_INPUT


class StorageError(Ending, OSError):
    """The disk is full, or returned other bytes than were written. Exit code 5.

    Complete files stay. The message is one line with the file or folder, the fault and the remedy.
    """

    exit_code = EXIT_STORAGE


class Terminated(Ending):
    """A signal arrived, and the last finished step has been saved. Exit code 143.

    Nobody reading the output any more counts as a signal.
    """

    exit_code = EXIT_TERMINATED


class OutOfTime(Ending):
    """`train.max_seconds` have passed, and the last finished step has been saved. Exit code 0.

    The same command continues the run.
    """

    exit_code = 0


class BadData(Ending):
    """A record that cannot be trained on; the finished steps are saved. Exit code 2.

    One line that names the record, what is wrong, and the remedy.
    """

    exit_code = EXIT_INPUT


class Diverged(Ending):
    """The loss or a gradient is not finite any more. Exit code 4.

    The last checkpoint holds finite numbers only.
    """

    exit_code = EXIT_DIVERGED

    def line(self) -> str:
        """The line begins with what happened."""
        return f"diverged: {self}"


def require(holds: bool, key: str, value: object, allowed: str) -> None:
    """Raise a ConfigError unless `holds`."""
    if not holds:
        raise ConfigError(key, value, allowed)
