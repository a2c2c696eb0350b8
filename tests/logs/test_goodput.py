import json

import pytest

from diffjax.logs import goodput


class Clock:
    """Seconds that a test moves by hand."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


def spend(spent, clock, **seconds):
    for kind, length in seconds.items():
        spent.to(kind)
        clock.now += length
    spent.to("step")


def test_every_second_goes_to_what_was_being_done():
    clock = Clock(100.0)
    spent = goodput.Goodput(clock=clock)
    clock.now += 1.0  # until told otherwise, a process starts
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
    assert "36.2 % of 40.0 s" in goodput.table(seconds)


def test_what_a_killed_process_did_behind_its_last_checkpoint_is_lost_and_so_is_the_time_between(
    tmp_path,
):
    """10 s of steps are saved at step 5; 4 s later it is killed; 30 s later another goes on."""
    clock, path = Clock(), tmp_path / "goodput.json"
    spent = goodput.Goodput(path, clock=clock, wall=clock)
    spend(spent, clock, start=1.0, compile=2.0, step=10.0)
    spent.saved(5)
    spend(spent, clock, checkpoint=1.0, step=3.0)
    spent.note()
    clock.now += 30.0
    spent = goodput.Goodput(path, clock=clock, wall=clock)
    clock.now += 0.5  # it restores
    spent.resume(5)
    spend(spent, clock, step=8.0)
    assert spent.seconds() == {
        "start": 1.5, "compile": 2.0, "data": 0.0, "step": 18.0, "checkpoint": 0.0, "sample": 0.0,
        "redone": 4.0, "down": 30.0,
    }  # fmt: skip
    # and once more, from the start: all of it was for nothing
    spent.note()
    clock.now += 1.0
    spent = goodput.Goodput(path, clock=clock, wall=clock)
    spent.resume(0)
    seconds = spent.seconds()
    assert seconds["step"] == 0.0
    assert seconds["redone"] == 4.0 + 1.5 + 2.0 + 18.0
    assert seconds["down"] == 31.0


def test_a_clock_set_back_or_a_torn_note_makes_no_time_negative(tmp_path):
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
