"""The races: which turns count, and the line protocol; no network is built here."""

import json
import os
import sys

import pytest

from benchmarks import page, peers, peers_table

PROGRAM = """
import time
from benchmarks.protocol import serve
held = bytearray(64 << 20)
del held
serve(lambda i: time.sleep(0.01 if i else 0.5), warmup=1, name="sleeper", flops_step=10)
"""


def turns(*shares):
    return [peers.Turn(1.0, share) for share in shares]


def test_disturbed_turns_are_dropped_if_three_quiet_ones_are_left():
    assert peers.counted(turns(0.1, 0.9, 0.0, 0.2, 0.3)) == [0, 2, 3]
    assert peers.counted(turns(0.1, 0.9, 0.0, 0.3, 0.3)) == [0, 1, 2, 3, 4]


def test_a_pair_of_turns_counts_if_both_are_quiet():
    ours, theirs = turns(0, 0, 0, 0.5, 0), turns(0.5, 0, 0, 0, 0)
    assert peers.counted(ours, theirs) == [1, 2, 4]


def test_a_program_takes_turns_and_the_first_step_does_not_count(tmp_path):
    env = dict(os.environ)
    racer = peers.Racer([sys.executable, "-c", PROGRAM], env, tmp_path / "errors.txt")
    racer.go(1)
    assert racer.facts["name"] == "sleeper"
    assert 10 <= racer.turns[0].ms < 250  # the median of both steps would be more
    assert 0 <= racer.turns[0].others <= 1
    assert racer.end()["rss_peak_mb"] > 1


def test_a_program_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="no such net"):
        peers.Racer([sys.executable, "-c", "raise ValueError('no such net')"], {}, tmp_path / "e")


def test_the_last_race_of_a_program_counts():
    line = {"work": "W1", "mode": "train", "name": "diffjax"}
    races = [("jax 1", 3.0), ("jax 2", 2.0), ("jax 1", 1.0)]
    lines = [json.dumps(line | {"framework": version, "ms": ms}) for version, ms in races]
    found = peers_table.latest(lines)["W1", "train"]
    assert {program: facts["ms"] for program, facts in found.items()} == {
        "diffjax, jax 1": 1.0,
        "diffjax, jax 2": 2.0,
    }


def test_a_part_of_the_page_is_replaced_and_the_rest_stays(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n")
    for text in ("one", "two"):
        page.fill("x", text, path)
    assert path.read_text() == "a\n<!-- x: begin -->\n\ntwo\n\n<!-- x: end -->\nb\n"
