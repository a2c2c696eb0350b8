"""The race of FIDs: what is counted, and that both programs find the same number."""

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fid
from benchmarks.peers import Turn

WORK = fid.Work("whole", 10, 20, 4, Path("nowhere"))


def test_pictures_of_both_sets_count_and_a_ratio_is_formed_within_a_round():
    turns = {
        "ours": [Turn(1000.0, 0.0), Turn(2000.0, 0.0), Turn(4000.0, 0.0), Turn(9.0, 0.9)],
        "theirs": [Turn(3000.0, 0.0), Turn(2000.0, 0.0), Turn(8000.0, 0.0), Turn(1.0, 0.0)],
    }
    found = fid.result(WORK, turns)  # the last round was not quiet
    assert found["ours_per_s"] == pytest.approx(2 * 10 / 2.0)
    assert found["theirs_per_s"] == pytest.approx(2 * 10 / 3.0)
    assert (found["ratio"], found["rounds"]) == (2.0, 3)
    assert fid.result(WORK._replace(part="features"), turns)["ours_per_s"] == pytest.approx(5.0)


def test_both_sets_are_the_same_in_each_process_and_differ_from_each_other():
    (a, b), (again, _) = WORK.sets(), WORK.sets()
    assert a.shape == b.shape == (10, 20, 20, 3)
    assert a.dtype == np.uint8
    np.testing.assert_array_equal(a, again)
    assert b.mean() - a.mean() > 30


def test_the_line_has_both_speeds_their_ratio_and_both_peaks():
    turns = {"ours": [Turn(1000.0, 0.0)], "theirs": [Turn(3000.0, 0.0)]}
    peaks = {"ours_mb": 700.4, "theirs_mb": 1500.0, "ours_value": 1.0, "theirs_value": 1.0}
    said = fid.line(WORK._asdict() | fid.result(WORK, turns) | peaks | {"others": 0.0})
    assert "ours 20, torch-fidelity 6.67 pictures/s, ratio 3; peak of memory 700 and 1500" in said


@pytest.mark.slow
@pytest.mark.peers
def test_both_programs_find_the_same_features(tmp_path):
    if importlib.util.find_spec("torch_fidelity") is None:  # imported, it asks for torchvision
        pytest.skip("torch-fidelity is not installed")
    flags = argparse.Namespace(peers=sys.executable, ours=sys.executable, rounds=1, seconds=0.0)
    found = fid.compare(flags, fid.Work("features", 3, 20, 2, tmp_path / "inception.pth"))
    assert found["ours_value"] == pytest.approx(found["theirs_value"], rel=1e-3)
    assert found["ours_mb"] > 0 < found["theirs_mb"]
    assert fid.line(found)
