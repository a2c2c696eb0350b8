"""Starts commands of the package, each in a fork of one process that has imported everything.

Imports are most of what a short command costs. So `forks` starts a server, `python -m
tools.strain.forked`, which imports them once and forks for each command. The server starts no
backend of jax and has one thread, because threads do not survive a fork. The fork runs the command
as `python -m` would: with its own output, and to the normal end of the interpreter.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

# what training and sampling import only once their flags are right
LATER = ("diffjax.build.training", "diffjax.training.loop", "diffjax.build.evaluation",
         "diffjax.build.stages.loading", "diffjax.build.guides.guiding",
         "diffjax.build.stages.loras", "diffjax.generation.rows",
         "diffjax.generation.folder")  # fmt: skip
SECONDS = 1800  # a busy machine may take minutes for what takes seconds


class Ended(NamedTuple):
    """How a command ended: its exit code (-N: signal N ended it), what it said, its CPU time."""

    code: int
    said: str
    cpu_s: float


Run: TypeAlias = Callable[[str, Sequence[str], Path], Ended]


@contextmanager
def forks(commands: Sequence[str], environ: Mapping[str, str]) -> Iterator[Run]:
    """A server, as a function that starts a command and waits for its end.

    commands: modules of the package with a `main`, such as "diffjax.main". The function takes one
    of them, its arguments, and the file that its output goes to.
    """
    server = subprocess.Popen(
        [sys.executable, "-m", "tools.strain.forked", *commands],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    asked, answers = server.stdin, server.stdout
    assert asked is not None
    assert answers is not None

    def run(command: str, arguments: Sequence[str], said: Path) -> Ended:
        print(json.dumps([command, list(arguments), str(said)]), file=asked, flush=True)
        code, cpu_s = json.loads(answers.readline())
        return Ended(code, said.read_text(errors="replace"), cpu_s)

    try:
        yield run
    finally:
        server.communicate()  # closes its input, and so ends it


def serve(commands: Sequence[str]) -> None:
    """Imports the commands and forks for each line of the input; a fork runs one and ends there."""
    for name in (*commands, *LATER):
        importlib.import_module(name)
    alive = os.listdir("/proc/self/task")
    assert len(alive) == 1, f"{len(alive)} threads after the imports; forks would lack them"
    gc.freeze()  # else the first collection of each fork copies all that was imported
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        command, arguments, said = json.loads(line)
        child = os.fork()
        if child == 0:
            become(command, arguments, said)
        _, status, used = os.wait4(child, 0)
        spent = used.ru_utime + used.ru_stime
        print(json.dumps([os.waitstatus_to_exitcode(status), spent]), file=answers, flush=True)


def become(command: str, arguments: Sequence[str], said: str) -> None:
    """Runs the command in this process, as if it were `python -m COMMAND ARGUMENTS > SAID 2>&1`."""
    from diffjax.core.command import start

    signal.alarm(SECONDS)  # ends the process, whatever it waits for
    for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)):
        file = os.open(said if number else os.devnull, flags)
        os.dup2(file, number)
        os.close(file)
    os.dup2(1, 2)
    sys.argv = [sys.modules[command].__file__ or command, *arguments]
    start(sys.modules[command].main)


if __name__ == "__main__":
    serve(sys.argv[1:])
