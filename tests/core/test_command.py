"""The shell that all commands share: flags, lines and exit codes."""

import argparse
import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from diffjax.core import command, errors, limits
from diffjax.core.errors import ConfigError, Diverged, OutOfTime, StorageError, Terminated
from diffjax.devices.processes import WorkersMissing
from diffjax.encoders.cache.cache import Damaged, MissingCaption

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "diffjax"
COMMANDS = (
    *[one.stem for one in PACKAGE.glob("*.py") if "command.start(" in one.read_text()],
    *[f"{one.parent.name}.__main__" for one in PACKAGE.glob("*/__main__.py")],
)
PATHS = ("workdir", "out", "mask", "picture", "prompts", "like", "captions", "where", "classifier")


def ends(error):
    def work():
        raise error

    return command.exit_code_of(work)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (WorkersMissing("process 1 of 2: nobody came"), 1, "process 1 of 2: nobody came"),
        (ConfigError("a.b", 3, "want 2"), 2, "config error: a.b = 3: want 2"),
        (MissingCaption("no caption 'x'"), 2, "no caption 'x'"),
        (Diverged("lower the rate"), 4, "diverged: lower the rate"),
        (StorageError("d: full"), 5, "d: full"),
        (Damaged("shard: damaged"), 5, "shard: damaged"),
        (Terminated("stopped at step 3"), 143, "stopped at step 3"),
        (FileNotFoundError(errno.ENOENT, "No such file", "f"), 2, "[Errno 2] No such file: 'f'"),
        (OSError(errno.ENOSPC, "No space left", "f"), 5, "[Errno 28] No space left: 'f'"),
        (OSError(errno.EROFS, "Read-only", "f"), 5, "[Errno 30] Read-only: 'f'"),
        (RuntimeError("Unable to initialize backend 'cuda': none"), 2,
         "config error: JAX_PLATFORMS = 'here': jax finds no such device here (Unable to"),
    ],
)  # fmt: skip
def test_each_ending_has_its_exit_code_and_one_line_on_stderr(
    error, code, line, capsys, monkeypatch
):
    monkeypatch.setenv("JAX_PLATFORMS", "here")
    assert ends(error) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(line)


def test_reaching_the_time_limit_is_no_error(capsys):
    assert ends(OutOfTime("stopped after 3 s")) == 0
    assert capsys.readouterr() == ("stopped after 3 s\n", "")


@pytest.mark.parametrize("error", [AttributeError("x"), RuntimeError("x"), ValueError("x")])
def test_an_error_of_this_program_is_not_caught(error):
    with pytest.raises(type(error)):
        ends(error)


def test_work_that_returns_nothing_ends_with_code_0():
    assert command.exit_code_of(lambda: None) == 0
    assert command.exit_code_of(lambda: errors.EXIT_TOO_BIG) == 3


def parsed(*arguments, **more):
    found = []
    flags = command.parser("some", "A command.")
    command.add_stages(flags)
    flags.add_argument("--out", type=command.path, default=Path("out"))
    code = command.run_command(flags, found.append, arguments, **more)
    assert code == 0
    return found[0]


def test_the_home_folder_is_meant_by_a_tilde_in_every_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    flags = parsed("--out", "~/pics", "--stages", "~/a,b,~/c")
    assert flags.out == Path("/home/me/pics")
    assert flags.stages == [Path("/home/me/a"), Path("b"), Path("/home/me/c")]
    assert parsed("--workdir=~").workdir == Path("/home/me")
    assert parsed().out == Path("out")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workdir", ""], "--workdir: the path is empty"),
        (["--out="], "--out: the path is empty"),
        (["--stages", "a,,b"], "--stages: the path is empty"),
        (["--out", "~no-such-user/x"], "--out: '~no-such-user/x': "),
        (["--workdi", "x"], "unrecognized arguments: --workdi"),
        (["--workdir", "x", "--stages", "y"], "not allowed with"),
    ],
)
def test_a_mistake_in_the_flags_is_one_line_and_exit_code_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed(*arguments)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("python -m diffjax.some: ")
    assert err.count("\n") == 1
    assert words in err


def test_no_command_takes_a_path_that_is_not_expanded():
    """A flag's type makes of ~/x what the one type of paths makes of it, in every command."""
    from diffjax import edit, ema, embed, evaluate, main, sample
    from diffjax.app import __main__ as app
    from diffjax.checkpoint import __main__ as checkpoint

    def actions(parser):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for child in action.choices.values():
                    yield from actions(child)
            yield action

    for module in (app, checkpoint, edit, ema, embed, evaluate, main, sample):
        for action in actions(module.parser()):
            assert action.type is not Path, (module.__name__, action.dest)
            if action.dest in PATHS:
                made = action.type("~/x")
                assert made == command.path("~/x"), (module.__name__, action.dest)


def test_unknown_arguments_are_passed_on_if_the_command_asks_for_them():
    flags = parsed("--out", "x", "--config.a=3", unknown="overrides")
    assert flags.overrides == ["--config.a=3"]


def test_64_bits_are_switched_off_with_a_warning(capsys, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    jax.config.update("jax_enable_x64", True)
    try:
        parsed()
        assert not jax.config.jax_enable_x64
        assert os.environ["JAX_ENABLE_X64"] == "0"
    finally:
        jax.config.update("jax_enable_x64", False)
    assert "JAX_ENABLE_X64 is ignored" in capsys.readouterr().err
    parsed()
    assert capsys.readouterr().err == ""


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("platform", "arguments"),
    [("cuda", ["main", "--config", "configs/base64.py:tiny", "--workdir", "run"]),
     pytest.param("abacus", ["sample", "--prompt", "x", "--out", "pictures"], marks=SLOW),
     pytest.param("cuda", ["doctor", "--wait_s", "60"], marks=SLOW)],
)  # fmt: skip
def test_a_platform_that_is_not_available_is_refused_in_one_line_with_exit_code_2(
    platform, arguments, tmp_path
):
    name, *flags = [str(tmp_path / one) if one in ("run", "pictures") else one for one in arguments]
    done = subprocess.run(
        [sys.executable, "-m", f"diffjax.{name}", *flags], cwd=ROOT, text=True, check=False,
        capture_output=True, env={**os.environ, "JAX_PLATFORMS": platform},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines() if name != "doctor" else done.stdout.splitlines()[-1:]
    assert f"JAX_PLATFORMS = '{platform}': jax finds no such device here" in line


@pytest.mark.parametrize(
    ("cores", "said", "threads"), [({5}, None, "2"), ({5}, "1", "1"), ({0, 1}, None, None)]
)
def test_one_core_gets_two_threads_unless_the_environment_says_otherwise(
    cores, said, threads, monkeypatch
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    monkeypatch.setenv(command.XLA_THREADS, said or "")
    if not said:
        monkeypatch.delenv(command.XLA_THREADS)
    shell = argparse.ArgumentParser()
    assert command.run_command(shell, lambda _: 0, []) == 0
    assert os.environ.get(command.XLA_THREADS) == threads


def numbers(flags):
    """The (name, flag) of every number among the flags of a parser and of its commands."""
    for action in flags._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from numbers(one)
        elif action.type in (int, float):
            yield action.dest, action.option_strings[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_number_that_a_flag_takes_has_limits(name):
    """A new one must stand in core/limits.py."""
    module = importlib.import_module(f"diffjax.{name}")
    for dest, flag in numbers(module.parser()):
        assert dest in limits.FLAGS, flag
        assert f"--{limits._spelt(dest)}" == flag


@pytest.mark.parametrize(("name", "limit"), limits.FLAGS.items())
def test_a_number_outside_its_limits_is_one_line_that_names_the_flag(name, limit, capsys):
    low, high = limit
    flags = command.Parser("test")
    kind = float if isinstance(low, float) or isinstance(high, float) else int
    flags.add_argument("--it", dest=name, type=kind)
    for value in (low, high):
        assert command.run_command(flags, lambda parsed: 0, ["--it", f"{value}"]) == 0
    outside = [f"{low - 1}", f"{high + 1 if high < 1e9 else high * 10}"]
    outside += ["nan", "inf"] if kind is float else [f"{10**30}"]
    for value in outside:
        assert command.run_command(flags, lambda parsed: 0, [f"--it={value}"]) == 2
        line = capsys.readouterr().err
        assert line.startswith("config error: --")
        assert line.count("\n") == 1
