"""Signals, sent to real processes; none of them loads jax."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from diffjax.core import signals

ROOT = Path(__file__).resolve().parents[2]


def child(body, tmp_path):
    """A process that runs `body` with a watch, once it has said that it is ready."""
    path = tmp_path / "program.py"
    path.write_text(
        "import hashlib, signal, sys, time\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests were started by\n"
        "from diffjax.core.signals import signals\n"
        "def deaf():\n"
        "    # one call of C, many seconds long, that lets other threads run meanwhile\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 200_000_000)\n"
        "def rescue():\n"
        "    print('rescued', flush=True)\n"
        "    return 143\n"
        "with signals() as watch:\n" + "".join(f"    {line}\n" for line in body)
    )
    process = subprocess.Popen(
        [sys.executable, str(path)], cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_acted_on_while_the_main_thread_sits_in_one_call_of_c(number, tmp_path):
    body = ["with watch.meanwhile(rescue):", "    print('ready', flush=True)", "    deaf()"]
    process = child(body, tmp_path)
    time.sleep(0.1)
    start = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - start < 5
    assert (process.returncode, out, err) == (143, "rescued\n", "")


def test_a_second_signal_does_not_cut_a_rescue_short(tmp_path):
    body = [
        "def slow():",
        "    print('begun', flush=True)",
        "    time.sleep(0.5)",
        "    return rescue()",
        "with watch.meanwhile(slow):",
        "    print('ready', flush=True)",
        "    deaf()",
    ]
    process = child(body, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (143, "rescued\n")


def test_outside_of_it_a_signal_is_only_remembered(tmp_path):
    body = [
        "print('ready', flush=True)",
        "while not watch:",
        "    time.sleep(0.01)",
        "print('told', flush=True)",
        "sys.exit(7)",
    ]
    process = child(body, tmp_path)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (7, "told\n")


def test_the_first_interrupt_is_remembered_and_the_second_raises():
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    with signals.signals() as watch:
        assert not watch
        signal.raise_signal(signal.SIGINT)
        assert watch
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before
    assert not any(thread.name == "signals" for thread in threading.enumerate())


def test_a_signal_between_the_last_look_and_the_work_is_acted_on_before_the_work():
    codes = []
    watch = signals.Watch(leave=codes.append)
    watch.tell()
    with watch.meanwhile(lambda: 143):
        assert codes == [143]


def test_work_that_is_done_is_held_until_a_rescue_that_has_begun_is_over():
    """The next step takes the memory of the state that is being saved."""
    order, begun = [], threading.Event()

    def rescue():
        begun.set()
        time.sleep(0.2)
        order.append("saved")
        return 143

    watch = signals.Watch(leave=lambda code: order.append(code))
    with watch.meanwhile(rescue):
        threading.Thread(target=watch.act).start()
        begun.wait()
    order.append("next step")
    assert order == ["saved", 143, "next step"]


def test_a_rescue_that_fails_is_heard_of_and_the_process_ends_all_the_same(capsys):
    codes = []
    watch = signals.Watch(leave=codes.append)
    with watch.meanwhile(lambda: 1 // 0):
        watch.act()
    assert codes == [1]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_process_that_was_started_by_nohup_outlives_its_terminal():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.signals() as watch:
            signal.raise_signal(signal.SIGHUP)
            assert not watch
            signal.raise_signal(signal.SIGTERM)
            assert watch
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


PRINTS = """
import sys, time
from diffjax.core import command, signals
def main():
    watched = sys.argv[1] == "watched"
    if not watched:
        while True:
            print("line", flush=True)
    with signals.signals() as watch:
        while not watch:
            print("line", file=sys.stdout if sys.argv[2] == "stdout" else sys.stderr)
        for _ in range(10_000):  # more than any buffer holds
            print("more", file=sys.stdout)
            print("more", file=sys.stderr) if sys.argv[2] == "stderr" else None
        print("saved", file=sys.stderr)
    return 143
command.start(main)
"""


@pytest.mark.parametrize("flags", [(), ("-u",)])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_when_nobody_reads_what_is_printed_the_watch_is_told_and_no_print_fails(stream, flags):
    process = subprocess.Popen(
        [sys.executable, *flags, "-c", PRINTS, "watched", stream], cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    gone, other = (process.stdout, process.stderr)[:: 1 if stream == "stdout" else -1]
    assert gone.readline() == "line\n"
    gone.close()
    told = other.read()
    assert process.wait(timeout=20) == 143
    assert told == "saved\n" if stream == "stdout" else set(told.split()) == {"more"}


def test_a_command_that_saves_nothing_ends_quietly_when_nobody_reads_it():
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS, "alone"], cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=20) == 143


def test_a_process_without_streams_runs_all_the_same():
    closed = f"exec {sys.executable} -c 'from diffjax.core import command; " \
        "command.start(lambda: print(1) or 7)' >&- 2>&-"  # fmt: skip
    done = subprocess.run(
        ["sh", "-c", closed], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == 7


def test_lines_that_a_full_disk_does_not_take_are_lost_and_the_work_goes_on():
    full = f"exec {sys.executable} -c 'from diffjax.core import command; " \
        "command.start(lambda: print(1, flush=True) or 7)' > /dev/full"  # fmt: skip
    done = subprocess.run(["sh", "-c", full], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 7


def test_another_signal_wakes_the_watch_for_nothing():
    heard = []
    previous = signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    try:
        with signals.signals() as watch:
            signal.raise_signal(signal.SIGUSR1)
            time.sleep(0.05)
            assert not watch
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert heard == [1]


def test_a_command_that_still_imports_ends_at_once_on_ctrl_c(tmp_path):
    """jax loses a KeyboardInterrupt in a callback of the garbage collector, or crashes on it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, signal\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'jax':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    )
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "diffjax.embed", "--help"],
        env=environ, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
