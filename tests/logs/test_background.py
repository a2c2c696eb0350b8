import threading
import time

from diffjax.logs.background import Background


def test_calls_run_in_order_and_close_waits_for_all_of_them(capsys):
    done = []
    behind = Background("the writer")
    for i in range(100):
        behind.submit(lambda i=i: done.append(i))
    behind.close()
    assert done == list(range(100))
    assert capsys.readouterr().err == ""


def test_calls_that_raise_cause_one_warning_and_the_others_still_run(capsys):
    done = []
    behind = Background("the writer")
    for i in range(5):
        behind.submit(lambda: 1 / 0)
        behind.submit(lambda i=i: done.append(i))
    behind.close()
    assert done == list(range(5))
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "the writer failed (ZeroDivisionError" in warning


def test_a_call_that_hangs_blocks_neither_submit_nor_close(capsys):
    wake = threading.Event()
    behind = Background("the writer", depth=3)
    start = time.monotonic()
    for _ in range(50):
        behind.submit(lambda: wake.wait(30))
    behind.close(seconds=0.05)
    assert time.monotonic() - start < 5
    wake.set()
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "too slow" in warning
