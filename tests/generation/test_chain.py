import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core.errors import ConfigError
from diffjax.generation import chain
from diffjax.generation.chain import TrainedStage
from diffjax.tasks import sampling
from diffjax.tasks.conditions import LowRes, Text
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from tests import tiny_cascade
from tests.tiny_cascade import Told

SETTINGS = SampleSettings(num_steps=1, threshold="none", aug_level=0.0)


def summed(x_t, logsnr_t, *, text, text_mask, low_res=0.0, **told):
    """The sum of all that the network is told, everywhere."""
    return jnp.zeros_like(x_t) + low_res + jnp.sum(text, axis=(1, 2))[:, None, None, None]


def stage(side_px, *conditions):
    told = (Text(2, 3), *conditions)
    task = Denoising(f"px{side_px}", Told(summed), (side_px, side_px, 3), told, predict="x_0")
    return TrainedStage(task, {}, SETTINGS)


def columns_of(*words):
    """The columns of prompts whose embeddings sum up to these numbers."""
    text = jnp.zeros((len(words), 3, 2)).at[:, 0, 0].set(jnp.array(words))
    return chain.prompt_columns(text, jnp.ones((len(words), 3), bool))


def test_each_stage_starts_from_the_picture_of_the_one_before_it():
    """Each adds its own text to what it starts from."""
    stages = [stage(4), stage(8, LowRes(4, 2)), stage(16, LowRes(8, 2))]
    pictures = chain.generate(stages, columns_of(0.1, -0.2), seeds=jnp.arange(2))
    for times, picture in enumerate(pictures, start=1):
        assert picture.shape == (2, 2 ** (times + 1), 2 ** (times + 1), 3)
        want = times * np.array([0.1, -0.2])[:, None, None, None]
        np.testing.assert_allclose(picture, np.broadcast_to(want, picture.shape), atol=1e-3)


def test_a_picture_that_is_given_stands_in_for_the_stages_before():
    columns = {**columns_of(0.1), "low_res": jnp.full((1, 4, 4, 3), 0.5)}
    (picture,) = chain.generate([stage(8, LowRes(4, 2))], columns, seeds=jnp.arange(1))
    np.testing.assert_allclose(picture, 0.6, atol=1e-3)


def test_stages_that_are_made_alike_share_one_program():
    assert stage(4).task == stage(4).task
    assert stage(8, LowRes(4, 2)).task != stage(8, LowRes(4, 2, max_level=0.5)).task
    run = sampling.compiled(sampling.sample, SETTINGS)
    chain.generate([stage(4)], columns_of(0.1), seeds=jnp.arange(1))
    programs = run._cache_size()
    chain.generate([stage(4)], columns_of(0.2), seeds=jnp.arange(1))
    assert run._cache_size() == programs


def test_a_task_reads_its_own_columns_and_their_negatives_and_no_others():
    column = jnp.zeros((1, 3, 2))
    negative = (column, jnp.ones((1, 3), bool))
    columns = chain.prompt_columns(*negative, negative)
    columns |= {"low_res": jnp.zeros((1, 4, 4, 3)), "label": jnp.zeros(1, jnp.int32)}
    text = {"text", "text_mask", "negative_text", "negative_text_mask"}
    assert set(chain.read_by(stage(4).task, columns)) == text
    assert set(chain.read_by(stage(8, LowRes(4, 2)).task, columns)) == {*text, "low_res"}


def test_zeros_are_rows_of_just_what_a_task_reads():
    task = stage(8, LowRes(4, 2)).task
    rows = chain.zeros(task, 5)
    assert jax.tree.map(jnp.shape, rows) == {
        "text": (5, 3, 2),
        "text_mask": (5, 3),
        "low_res": (5, 4, 4, 3),
    }
    assert not any(jnp.any(column) for column in rows.values())


def test_a_sampler_of_a_learned_variance_is_refused_where_none_was_learned(tmp_path):
    made = tiny_cascade.cascade(tmp_path)
    settings = [dataclasses.replace(one.settings, sampler="ddpm_learned") for one in made.stages]
    with pytest.raises(ConfigError, match=r"--sampler = 'ddpm_learned'.*small was trained without"):
        made.with_settings(settings)
