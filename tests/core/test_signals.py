"""Signals, sent to real processes; none of them loads jax."""

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
        "import hashlib, sys, time\n"
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


@pytest.mark.parametrize("number", signals.SIGNALS)
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
