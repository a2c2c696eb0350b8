import dataclasses

import numpy as np
import pytest

from diffjax.core.errors import ConfigError
from diffjax.generation import rows, watch
from diffjax.generation.jobs import Job
from diffjax.tasks.settings import SampleSettings
from tests import tiny_cascade


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tiny_cascade.cascade(tmp_path_factory.mktemp("t5"), num_steps=5)


@pytest.mark.slow
def test_frames_are_the_denoised_guesses_of_each_stage_and_then_its_picture(trained):
    job = Job("a red apple", 3)
    (pictures,) = rows.make(trained, [job])
    frames = watch.frames(trained, job, pictures)
    assert len(frames) == 5 + 5
    assert {frame.shape for frame in frames} == {(128, 128, 3)}
    small, large = pictures
    np.testing.assert_array_equal(frames[4], np.kron(small, np.ones((16, 16, 1), np.uint8)))
    np.testing.assert_array_equal(frames[9], np.kron(large, np.ones((8, 8, 1), np.uint8)))
    far = [np.abs(frame.astype(int) - frames[9]).mean() for frame in frames[5:]]
    assert far == sorted(far, reverse=True)
    assert min(far[:-1]) > 1


def test_a_film_with_too_many_steps_for_the_memory_is_refused(trained):
    large = dataclasses.replace(trained.stages[1].task, shape=(1024, 1024, 3))
    stages = (dataclasses.replace(trained.stages[1], task=large),)
    many = dataclasses.replace(trained, stages=stages).with_settings([SampleSettings(400)])
    with pytest.raises(ConfigError, match="--steps = 400: --film at 1024 px takes at most 317"):
        watch.check_memory(many)
    watch.check_memory(many.with_settings([SampleSettings(300)]))
