"""Wrong edits that the tests must notice: applies each of tests/mutants.toml and runs its tests.

    python -m tools.mutants [--only TEXT] [--unkilled] [--trust]

Each edit is made in a copy of the repository, so the working tree stays as it is. The tests named
by an edit must pass without it and fail with it. tests/mutants.md is written anew with what was
found. Exit codes: 0 all that were tried are killed, 1 some survived, 2 the list is wrong.
"""

import argparse
import importlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIST, TABLE = ROOT / "tests/mutants.toml", ROOT / "tests/mutants.md"
SURVIVED, UNTRIED = "**survived**", "not tried"
FLAGS = ("-x", "-q", "-n", "0", "--tb=no", "--durations=0", "-p", "no:cacheprovider")
WARM = ("jax.numpy", "flax.linen", "optax", "orbax.checkpoint", "grain", "tensorflow_datasets",
        "hypothesis", "PIL.Image", "ml_collections", "safetensors.numpy", "einops")  # fmt: skip
LIMIT_S = 900  # a mutant that runs longer than this is killed by its tests' time limit
HEAD = """# Wrong edits, and the tests that notice them

Written by `python -m tools.mutants` from `tests/mutants.toml`. Each edit was made in a copy of the
repository, and the tests that it names were run: they pass without the edit.

| file | the edit | noticed by |
|---|---|---|
"""


@dataclass(frozen=True)
class Mutant:
    """A wrong edit: `old` becomes `new` in `file`; `tests`, as pytest takes them, must notice."""

    file: str
    what: str
    old: str
    new: str
    tests: tuple[str, ...]

    def fault(self, root: Path) -> str:
        """Why the edit cannot be made; "" if it can."""
        path = root / self.file
        if not path.is_file():
            return f"{self.file}: no such file"
        found = path.read_text().count(self.old)
        return "" if found == 1 else f"{self.file}: {self.old!r} is there {found} times, want once"


def read(path: Path = LIST) -> list[Mutant]:
    """The edits of a list; `what` names each."""
    rows = tomllib.loads(path.read_text())["mutant"]
    return [Mutant(**{**row, "tests": tuple(row["tests"])}) for row in rows]


def noticed_by(mutant: Mutant, copy: Path) -> str:
    """The first test that fails with the edit made in `copy`, which is mended afterwards."""
    path = copy / mutant.file
    right = path.read_text()
    path.write_text(right.replace(mutant.old, mutant.new))
    _forget(path)
    try:
        return failing(mutant.tests, copy)
    finally:
        path.write_text(right)
        _forget(path)


def _forget(path: Path) -> None:
    """Remove the bytecode: Python takes two files of one size and second for the same."""
    for old in path.parent.glob(f"__pycache__/{path.stem}.*"):
        old.unlink()


def warm_up(copy: Path) -> None:
    """Import what all tests need but diffjax itself, so that each run starts from there."""
    sys.path[:] = [str(copy), *(path for path in sys.path if Path(path).resolve() != ROOT)]
    os.chdir(copy)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tools"]:
        del sys.modules[name]  # this package was found in ROOT, and its edits are made in the copy
    for name in ("tests.conftest", *WARM):
        importlib.import_module(name)


def failing(tests: Sequence[str], copy: Path) -> str:
    """The first of these tests that fails, or the file that cannot be imported; "" if none."""
    with tempfile.TemporaryFile("w+") as out:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            os.chdir(copy)
            os._exit(pytest.main([*FLAGS, *tests]))
        end = time.monotonic() + LIMIT_S
        ended, status = os.waitpid(child, os.WNOHANG)
        while not ended and time.monotonic() < end:
            time.sleep(0.1)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "the time limit"
        out.seek(0)
        said = out.read()
    code = os.waitstatus_to_exitcode(status)
    if code == pytest.ExitCode.OK:
        return ""
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise ValueError(f"{', '.join(tests)}: none of these is a fast test")
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.M)
    if found is None:
        raise RuntimeError(f"pytest {' '.join(tests)}: {said[-2000:]}")
    return found[1].split("[")[0]


def rows_of(path: Path = TABLE) -> dict[str, str]:
    """What each edit was noticed by, as the table has it."""
    if not path.exists():
        return {}
    rows = [line.strip("| ").split(" | ") for line in path.read_text().splitlines()]
    rows = [row for row in rows if len(row) == 3 and "/" in row[0]]
    return {row[1]: row[2].strip("`") for row in rows}


def table(mutants: Sequence[Mutant], found: dict[str, str]) -> str:
    """The table, and how many were killed."""
    rows = []
    for one in mutants:
        by = found.get(one.what, UNTRIED)
        rows.append(
            f"| {one.file} | {one.what} | {by if by in (SURVIVED, UNTRIED) else f'`{by}`'} |"
        )
    tried = [found[one.what] for one in mutants if one.what in found]
    killed = sum(by not in (SURVIVED, UNTRIED) for by in tried)
    return f"{HEAD}{chr(10).join(rows)}\n\n{killed} of {len(mutants)} are noticed.\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the flags, try the edits, and write the table."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--only", default="", help="edits whose file or description holds this text")
    flags.add_argument("--unkilled", action="store_true", help="edits that are not yet noticed")
    flags.add_argument("--trust", action="store_true", help="that tests pass without any edit")
    asked = flags.parse_args(arguments)
    mutants, found = read(), rows_of()
    faults = [wrong for one in mutants if (wrong := one.fault(ROOT))]
    if faults:
        print("\n".join(faults), file=sys.stderr)
        return 2
    todo = [one for one in mutants if asked.only in f"{one.file} {one.what}"]
    if asked.unkilled:
        todo = [one for one in todo if found.get(one.what, UNTRIED) in (SURVIVED, UNTRIED)]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "out", "__pycache__")
        )
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache/jax"))
        warm_up(copy)
        sound: dict[tuple[str, ...], str] = {}
        for one in todo:
            if one.tests not in sound and not asked.trust:
                sound[one.tests] = failing(one.tests, copy)
            if sound.get(one.tests):
                print(f"{sound[one.tests]} fails without any edit", file=sys.stderr)
                return 2
            found[one.what] = noticed_by(one, copy) or SURVIVED
            print(f"{one.file}: {one.what}: {found[one.what]}", flush=True)
            # read again: another of these may be at work, or the list may have grown
            TABLE.write_text(table(read(), {**rows_of(), one.what: found[one.what]}))
    return int(any(found[one.what] == SURVIVED for one in todo))


if __name__ == "__main__":
    sys.exit(main())
