"""The race of two programs: what is counted."""

import json

from benchmarks import duel, duel_table
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


def test_the_table_has_the_last_race_of_each_step_and_version():
    facts = {
        "size": "emoji", "batch": 64, "ours_framework": "jax 1", "theirs_framework": "torch 2",
        "ours_ms": 400.0, "theirs_ms": 500.0, "ratio": 1.25, "least": 1.0, "most": 1.5,
        "ours_mb": 10.0, "theirs_mb": 20.0, "rounds": 5, "quiet": 4, "others": 0.1,
        "date": "2026-11-30", "cores": 2, "cpu": "a CPU", "tunables": "none",
    }  # fmt: skip
    races = [{**facts, "ratio": 9.0}, facts, {**facts, "ours_framework": "jax 2"}]
    said = duel_table.table([json.dumps(race) for race in races])
    assert "9.00" not in said
    assert said.count("64 pairs | jax") == 2
    assert "| 400 | torch 2 | 500 | 1.25 (1.00 to 1.50) | 10 | 20 | 4 of 5 | 10% |" in said
