"""The race of latent diffusion: what is counted, and that both sides are given the same."""

import numpy as np
import pytest

from benchmarks import latent
from benchmarks.peers import Turn


def test_a_ratio_is_formed_within_a_round_and_disturbed_rounds_do_not_count():
    turns = {
        "ours": [Turn(100.0, 0.0), Turn(200.0, 0.0), Turn(400.0, 0.0), Turn(9.0, 0.9)],
        "theirs": [Turn(300.0, 0.0), Turn(200.0, 0.0), Turn(800.0, 0.0), Turn(1.0, 0.0)],
    }
    found = latent.result(turns)
    assert (found["ratio"], found["least"], found["most"], found["rounds"]) == (2.0, 1.0, 3.0, 3)
    assert (found["ours_ms"], found["theirs_ms"]) == (200.0, 300.0)
    facts = {**latent.WORKS["dit"]._asdict(), **found, "ours_mb": 1.0, "theirs_mb": 2.0}
    said = latent.line({**facts, "apart": 1e-6})
    assert "ours 200 ms, diffusers 300 ms; ours is 2.00 times as fast (1.00 to 3.00)" in said


@pytest.mark.parametrize("part", latent.WORKS)
def test_inputs_are_the_same_in_each_process_and_have_the_sizes_of_the_work(part):
    work = latent.WORKS[part]
    one, again = latent.inputs(work), latent.inputs(work)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert one["x"].shape == (work.rows, work.side, work.side, 4)
    assert work.trains == part.endswith("_train")
    assert latent.config_of(work)["sample_size"] in (work.side, 8 * work.side)
