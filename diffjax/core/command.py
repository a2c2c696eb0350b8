"""What all commands share: how they read flags, report errors in one line, and end."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias

from diffjax.core import limits, signals
from diffjax.core.errors import EXIT_INPUT, EXIT_STORAGE, ConfigError, Ending
from diffjax.core.files import disk_fault

Work: TypeAlias = Callable[[argparse.Namespace], int | None]

X64 = "JAX_ENABLE_X64"
XLA_THREADS = "PJRT_NPROC"


class Parser(argparse.ArgumentParser):
    """A parser without abbreviated flags that reports a mistake in one line."""

    def __init__(self, prog: str | None = None, description: str | None = None):
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Prints one line and exits with code 2."""
        self.exit(EXIT_INPUT, f"{self.prog}: {message}; --help shows the flags\n")


def parser(name: str, description: str | None) -> Parser:
    """The parser of `python -m diffjax.NAME`. doc: the module's docstring, shown by --help."""
    return Parser(prog=f"python -m diffjax.{name}", description=description)


def path(text: str) -> Path:
    """The type of a flag that names a file or folder: expands ~, and refuses ""."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; name one (. is the current folder)")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~NAME of a user who does not exist
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def paths(text: str) -> list[Path]:
    """The type of a flag with several paths, PATH,PATH,...; each is read by `path`."""
    return [path(part) for part in text.split(",")]


def add_stages(flags: argparse.ArgumentParser, checkpoint: bool = False) -> None:
    """Adds the flags --workdir and --stages, which name the trained stages.

    checkpoint: also --checkpoint, which names those of others.
    """
    where = flags.add_mutually_exclusive_group()
    where.add_argument(
        "--workdir", type=path, help="the folder of a trained cascade; none: the one that ships"
    )
    where.add_argument(
        "--stages", type=paths, help="workdirs or exports of the stages: DIR,DIR,..."
    )
    if checkpoint:
        where.add_argument(
            "--checkpoint",
            type=path,
            metavar="PLACE",
            help="a checkpoint of others: a Stable Diffusion 1 or 2, a folder of diffusers or a "
            "single file; or a DDPM, a folder of diffusers or [CONFIG=]FILE.pt of OpenAI's",
        )


def add_parameters(flags: argparse.ArgumentParser) -> None:
    """Adds the flags --ema and --verify, which say which parameters the stages are given."""
    flags.add_argument(
        "--ema",
        help="average of the parameters: a name of train.ema, live, or a file that diffjax.ema or "
        "an export wrote; or one per stage, with commas",
    )
    flags.add_argument(
        "--verify",
        choices=("full", "size"),
        default="full",
        help="how checkpoints are checked: by the hash of every file, or by file sizes alone",
    )


def add_loras(flags: argparse.ArgumentParser) -> None:
    """Adds the flag --lora, which changes the parameters of the stages."""
    flags.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:WEIGHT]",
        help="merge a LoRA file into the stage that it is of, times WEIGHT, by default 1; may be "
        "given many times (docs/lora.md)",
    )


def run_command(
    flags: argparse.ArgumentParser,
    work: Work,
    arguments: Sequence[str] | None = None,
    *,
    unknown: str = "",
) -> int:
    """Parses the arguments (by default those of the process), works, and returns the exit code.

    unknown: the attribute in which `work` finds arguments that the parser does not know; without
    it they are a mistake. Exceptions that are bugs of this program are not caught.
    """
    if unknown:
        parsed, rest = flags.parse_known_args(arguments)
        setattr(parsed, unknown, rest)
    else:
        parsed = flags.parse_args(arguments)
    hold_precision()
    hold_threads()

    def checked() -> int | None:
        limits.check_flags(parsed)
        return work(parsed)

    return exit_code_of(checked)


def exit_code_of(work: Callable[[], int | None]) -> int:
    """Works and returns the exit code; an expected error is printed as one line."""
    try:
        return work() or 0
    except Ending as ending:
        return say(ending)
    except OSError as error:
        print(_first_line(error), file=sys.stderr)
        return EXIT_STORAGE if disk_fault(error) else EXIT_INPUT
    except (AssertionError, RuntimeError, AttributeError, KeyError) as error:
        line = no_device(error) or _no_key(error)
        if not line:
            raise
        print(line, file=sys.stderr)
        return EXIT_INPUT


def say(ending: Ending) -> int:
    """Prints the line of an ending and returns its exit code."""
    code = ending.exit_code
    print(ending.line(), file=sys.stderr if code else sys.stdout, flush=True)
    return code


def start(main: Callable[[], int], *, at_once: bool = False) -> NoReturn:
    """Runs a command and ends its process; to be called when its module is run.

    Signals end the process with 143 until `main` handles them itself. at_once: do not wait for
    threads that are still running.
    """
    signals.leave_on_signals()
    signals.guard_streams()
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if at_once:
        os._exit(code)
    sys.exit(code)


def hold_precision() -> None:
    """Turns off JAX's 64-bit mode, in which a run could not be continued by any other run."""
    jax = sys.modules.get("jax")
    on = os.environ.get(X64, "").lower() in ("1", "true", "t", "yes", "y", "on")
    if not on and not (jax and jax.config.jax_enable_x64):
        return
    os.environ[X64] = "0"  # also for jax yet to be imported, and for worker processes
    if jax:
        jax.config.update("jax_enable_x64", False)
    print(f"warning: {X64} is ignored: the program chooses its own dtypes", file=sys.stderr)


def hold_threads() -> None:
    """Give XLA two threads on one core, unless the environment says otherwise.

    With one thread XLA adds in another order than with two or more, and a picture would differ by
    a level from that of any other machine. It must be called before jax starts its devices.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if cores == 1:
        os.environ.setdefault(XLA_THREADS, "2")


def no_device(error: BaseException) -> str:
    """The message for a JAX_PLATFORMS that is not available here; "" for other errors."""
    told = _first_line(error)
    if not told.startswith("Unable to initialize backend") and not _raised_in(error, "xla_bridge"):
        return ""
    why = "" if told == type(error).__name__ else f" ({told})"
    return str(
        ConfigError(
            "JAX_PLATFORMS",
            os.environ.get("JAX_PLATFORMS", ""),
            f"jax finds no such device here{why}; mend its driver, install the jax that knows it "
            "(pip install 'diffjax[cuda]' or 'diffjax[tpu]'), or set JAX_PLATFORMS=cpu",
        )
    )


def _no_key(error: BaseException) -> str:
    """The message for a config that lacks a section that every stage has; "" for other errors."""
    if not _raised_in(error, "config_dict"):
        return ""
    return (
        f"config error: the config lacks a key: {_first_line(error)}; it is not of this version of "
        "diffjax, or its file does not begin with configs.common.stage_config"
    )


def _raised_in(error: BaseException, module: str) -> bool:
    """Whether the error was raised in the file `module`.py of another library."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).stem == module


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
