"""The race of two programs: what is counted."""

from benchmarks import duel
from benchmarks.peers import Turn


def test_a_ratio_is_formed_within_a_round_and_disturbed_rounds_do_not_count():
    turns = {
        "ours": [Turn(100.0, 0.0), Turn(200.0, 0.0), Turn(400.0, 0.0), Turn(9.0, 0.9)],
        "theirs": [Turn(300.0, 0.0), Turn(200.0, 0.0), Turn(800.0, 0.0), Turn(1.0, 0.0)],
    }
    found = duel.result(turns)
    assert (found["ratio"], found["least"], found["most"], found["rounds"]) == (2.0, 1.0, 3.0, 3)
    assert (found["ours_ms"], found["theirs_ms"]) == (200.0, 300.0)
    said = duel.line({**found, "ours_mb": 1.0, "theirs_mb": 2.0, "apart": 1e-6}, "diffusers")
    assert "ours 200 ms, diffusers 300 ms; ours is 2.00 times as fast (1.00 to 3.00)" in said
