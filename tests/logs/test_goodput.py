import json

import pytest

from diffjax.logs import goodput


class Clock:
    """A clock that moves only when a test moves it."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


def spend(spent, clock, **seconds):
    for kind, length in seconds.items():
        spent.switch_to(kind)
        clock.now += length
    spent.switch_to("step")


def test_every_second_counts_for_the_work_of_that_time():
    clock = Clock(100.0)
    spent = goodput.Goodput(clock=clock)
    clock.now += 1.0  # a process begins with the kind `start`
    spend(spent, clock, compile=20.0, data=0.5, step=7.0, checkpoint=2.0, sample=1.5)
    spend(spent, clock, data=0.5, step=7.5)
    seconds = spent.seconds()
    assert seconds == {
        "start": 1.0, "compile": 20.0, "data": 1.0, "step": 14.5, "checkpoint": 2.0,
        "sample": 1.5, "redone": 0.0, "down": 0.0,
    }  # fmt: skip
    assert sum(seconds.values()) == clock.now - 100.0 == spent.elapsed()
    assert spent.training() == 15.5
    assert goodput.share(seconds) == pytest.approx(14.5 / 40.0)
    assert "36.2 % of 40.0 s" in goodput.goodput_table(seconds)


def test_work_after_the_last_checkpoint_and_the_time_without_a_process_count_as_lost(tmp_path):
    """Step 5 is saved after 10 s of steps; 4 s later the process dies; 30 s later one resumes."""
    clock, path = Clock(), tmp_path / "goodput.json"
    spent = goodput.Goodput(path, clock=clock, wall=clock)
    spend(spent, clock, start=1.0, compile=2.0, step=10.0)
    spent.saved(5)
    spend(spent, clock, checkpoint=1.0, step=3.0)
    spent.note()
    clock.now += 30.0
    spent = goodput.Goodput(path, clock=clock, wall=clock)
    clock.now += 0.5  # restoring
    spent.resume(5)
    spend(spent, clock, step=8.0)
    assert spent.seconds() == {
        "start": 1.5, "compile": 2.0, "data": 0.0, "step": 18.0, "checkpoint": 0.0, "sample": 0.0,
        "redone": 4.0, "down": 30.0,
    }  # fmt: skip
    # the next process finds no checkpoint and starts anew: all work was lost
    spent.note()
    clock.now += 1.0
    spent = goodput.Goodput(path, clock=clock, wall=clock)
    spent.resume(0)
    seconds = spent.seconds()
    assert seconds["step"] == 0.0
    assert seconds["redone"] == 4.0 + 1.5 + 2.0 + 18.0
    assert seconds["down"] == 31.0


def test_the_last_wait_for_the_writer_is_no_work_done_again(tmp_path):
    """Saved at step 5, the writer is waited for; then the run goes on, and is killed at once."""
    clock, path = Clock(), tmp_path / "goodput.json"
    spent = goodput.Goodput(path, clock=clock, wall=clock)
    spend(spent, clock, start=1.0, step=10.0)
    spent.switch_to("checkpoint")
    clock.now += 0.5
    spent.saved(5)
    clock.now += 2.0
    spent.note()
    for _ in range(2):
        spent = goodput.Goodput(path, clock=clock, wall=clock)
        spent.resume(5)
        seconds = spent.seconds()
        assert (seconds["checkpoint"], seconds["redone"]) == (2.5, 0.0)
        spent.note()
    spend(spent, clock, data=0.25, step=1.0)  # this is lost
    spent.note()
    spent = goodput.Goodput(path, clock=clock, wall=clock)
    spent.resume(5)
    assert (spent.seconds()["checkpoint"], spent.seconds()["redone"]) == (2.5, 1.25)


def test_no_time_is_negative_after_a_clock_set_back_or_a_truncated_note(tmp_path):
    clock, path = Clock(1000.0), tmp_path / "goodput.json"
    spent = goodput.Goodput(path, clock=clock, wall=clock)
    spend(spent, clock, step=10.0)
    clock.now -= 500.0
    spent.saved(3)
    for noted in (path.read_text(), path.read_text()[:20], "[]", ""):
        path.write_text(noted)
        spent = goodput.Goodput(path, clock=clock, wall=Clock(0.0))
        spent.resume(3)
        spent.note()
        assert min(spent.seconds().values()) == 0.0
        assert json.loads(path.read_text())["seconds"] == spent.seconds()
