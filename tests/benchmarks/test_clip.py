"""The race of CLIPs: both sides are given the same, and have the same network."""

import argparse
import importlib.util
import sys

import numpy as np
import pytest

from benchmarks import clip, duel


def test_batches_are_the_same_in_each_process_and_texts_end_with_the_highest_id():
    config = clip.WORKS["tiny"]
    (image, ids), (again, ids_again) = clip.batch_of(config, 3), clip.batch_of(config, 3)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(ids, ids_again)
    assert image.shape == (3, config.size_px, config.size_px, 3)
    assert (ids.argmax(axis=1) == config.length - 1).all()
    assert ids.max() == config.vocabulary - 1


@pytest.mark.slow
@pytest.mark.peers
def test_both_programs_have_the_same_features():
    if importlib.util.find_spec("open_clip") is None:  # imported, it asks for torchvision
        pytest.skip("open_clip is not installed")
    flags = argparse.Namespace(
        size="tiny", batch=3, steps=1, rounds=1, seconds=0.0, ours=sys.executable,
        peers=sys.executable,
    )  # fmt: skip
    found = clip.compare(flags)
    assert found["apart"] < 1e-5
    assert found["ours_mb"] > 0 < found["theirs_mb"]
    assert duel.line(found, "open_clip")
