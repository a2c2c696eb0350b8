"""The race of latent diffusion: both sides are given the same."""

import numpy as np
import pytest

from benchmarks import latent


@pytest.mark.parametrize("part", latent.WORKS)
def test_inputs_are_the_same_in_each_process_and_have_the_sizes_of_the_work(part):
    work = latent.WORKS[part]
    one, again = latent.inputs(work), latent.inputs(work)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert one["x"].shape == (work.rows, work.side, work.side, 4)
    assert work.trains == part.endswith("_train")
    assert latent.config_of(work)["sample_size"] in (work.side, 8 * work.side)
