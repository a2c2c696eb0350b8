"""python -m diffjax.checkpoint list|verify|digest|export|import WORKDIR ...

Inspects and converts the checkpoints of a run.
list: print every step and its state, judged by the sizes of its files.
verify: the same, judged by the hashes of the files.
digest: print the sha256 of all arrays of a step; equal states have equal digests.
export: write the parameters, an average or the whole state to one safetensors file.
import: make a step from such a file.
Exit codes: 0 done, 2 bad input, 5 a step is damaged or the disk is full.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax

from diffjax import checkpoint
from diffjax.checkpoint import manifest, portable, reading, steps, workdir
from diffjax.checkpoint.manifest import GOOD, UNVERIFIED, StepReport
from diffjax.core import command, digest, tensorfile
from diffjax.core.errors import EXIT_STORAGE, require
from diffjax.core.files import storing, write_whole
from diffjax.core.tables import align_columns, format_bytes


def parser() -> argparse.ArgumentParser:
    """The command line: five commands and their flags."""
    flags = command.parser("checkpoint", __doc__)
    commands = flags.add_subparsers(dest="command", required=True)
    for name, does in (
        ("list", "print every step and its state, judged by the sizes of its files"),
        ("verify", "the same, judged by the hashes of the files; exit code 5 unless all are good"),
        ("digest", "print the sha256 of a step's arrays and data position"),
        ("export", "write a step to one safetensors file"),
        ("import", "make a step from a file that export wrote"),
    ):
        one = commands.add_parser(name, help=does, description=does)
        one.add_argument(
            "workdir", type=command.path, metavar="WORKDIR", help="the folder of a run"
        )
        if name in ("digest", "export"):
            one.add_argument("--step", type=int, help="default: the newest complete step")
        if name == "digest":
            one.add_argument(
                "--arrays", action="store_true", help="print the digest of each array too"
            )
        if name == "export":
            one.add_argument("--out", type=command.path, required=True, metavar="FILE.safetensors")
            one.add_argument(
                "--what",
                default=portable.EMA,
                help="ema (default: the average that sampling uses), the name of an average, live "
                "(the parameters themselves), or state (everything)",
            )
            one.add_argument(
                "--dtype", choices=(*portable.DTYPES, portable.BYTES), default="float32"
            )
        if name == "import":
            one.add_argument("file", type=command.path, metavar="FILE.safetensors")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the flags and run the command; returns the exit code."""
    return command.run_command(parser(), work, arguments)


def work(flags: argparse.Namespace) -> int | None:
    """Run the command that was named, on the CPU: a trainer may be using the accelerator."""
    jax.config.update("jax_platforms", "cpu")
    if flags.command in ("list", "verify"):
        return print_steps(flags.workdir, full=flags.command == "verify")
    {"digest": print_digest, "export": export, "import": import_file}[flags.command](flags)
    return None


def print_steps(path: Path, full: bool) -> int:
    """Print one line per step. The exit code is 5 if `full` finds a damaged or incomplete step."""
    code = 0
    for directory in step_folders(path):
        start = time.perf_counter()
        look = reading.inspect if full else manifest.inspect
        found = checkpoint.survey(directory, full=full, look=look)
        seconds = time.perf_counter() - start
        print(f"{directory}:")
        for line in step_table(found):
            print(f"  {line}")
        if full:
            print(f"  {format_bytes(sum(f.num_bytes for f in found))} hashed in {seconds:.1f} s")
            if any(f.state not in (GOOD, UNVERIFIED) for f in found):
                code = EXIT_STORAGE
    return code


def step_table(found: Sequence[StepReport]) -> list[str]:
    """One line per step: number, state, size, date, and what is wrong with it."""
    rows = [("step", "state", "size", "saved", "")]
    for f in found:
        date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(f.saved))
        rows.append((str(f.step), f.state, format_bytes(f.num_bytes), date, f.why))
    return align_columns(rows, right=(0,))


def print_digest(flags: argparse.Namespace) -> None:
    """Print the digest of a step on the disk; a run prints the same digest when it ends."""
    step = choose_step(flags)
    state, position = checkpoint.read(step)
    if flags.arrays:
        for name, one in sorted(digest.leaf_digests(state).items()):
            print(f"{one}  {name}")
    print(f"{digest.digest_of(state, position)}  step {step.name}, data at {position}")


def export(flags: argparse.Namespace) -> None:
    """Write the file, and print what it holds."""
    step = choose_step(flags)
    config = portable.config_of(step.parent.parent)
    with storing(flags.out):
        num_bytes = portable.export(
            step,
            flags.out,
            what=flags.what,
            dtype=flags.dtype,
            config=config,
        )
    print(f"{flags.out}: {flags.what} of step {step.name}, {format_bytes(num_bytes)}")


def import_file(flags: argparse.Namespace) -> None:
    """Make a step from the file. The workdir may be new; an existing step is not replaced."""
    number, state, position, config = portable.load(flags.file)
    target = flags.workdir / "checkpoints"
    require(
        number not in steps.steps_in(target),
        "WORKDIR",
        str(flags.workdir),
        f"already has a step {number}; name another workdir",
    )
    with workdir.lock(flags.workdir):
        workdir.check_space(flags.workdir, checkpoint.needed_bytes(state))
        if config and not (flags.workdir / portable.CONFIG).exists():
            write_whole(flags.workdir / portable.CONFIG, config.encode())
        frozen, said = portable.frozen_of(flags.file)
        if frozen and not (flags.workdir / portable.FROZEN).exists():
            tensorfile.write(flags.workdir / portable.FROZEN, frozen, said)
        with checkpoint.open_dir(target, keep=sys.maxsize, config=config) as checkpoints:
            checkpoint.save(checkpoints, number, state, position)
    print(f"{target / str(number)}: step {number} from {flags.file}")


def choose_step(flags: argparse.Namespace) -> Path:
    """The folder of the step that the flags name, after checking the hashes of all its files."""
    found = step_folders(flags.workdir)
    require(
        len(found) == 1,
        "WORKDIR",
        str(flags.workdir),
        f"has several stages: name one of {', '.join(str(d.parent) for d in found)}",
    )
    return checkpoint.choose(checkpoint.open_to_read(found[0]), flags.step)


def step_folders(path: Path) -> list[Path]:
    """The folders that hold the steps of a workdir: its own, or one for each stage."""
    for found in ([path / "checkpoints"], sorted(path.glob("*/checkpoints"))):
        if found and found[0].is_dir():
            return found
    require(bool(steps.steps_in(path)), "WORKDIR", str(path), "holds no checkpoints")
    return [path]


if __name__ == "__main__":
    command.start(main)
