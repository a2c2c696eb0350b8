import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.build import tasks
from diffjax.build.options import config
from diffjax.core import rng
from diffjax.generation.chain import TrainedStage, generate, prompt_columns
from diffjax.tasks import sampling
from diffjax.tasks.conditions import LowRes
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.text import null_text
from tests.diffusion.helpers import images
from tests.tasks.network import Network
from tests.tasks.stages import FLAT, SR, moved
from tests.tasks.stages import TEXT as TEXT_CONDITION
from tests.tiny_cascade import Told

SETTINGS = SampleSettings(num_steps=2, guidance_weight=3.0, aug_level=0.2)
TEXT = images(1, (4, 6, 4, 1))[..., 0]
MASK = jnp.arange(6)[None, :] < jnp.array([3, 6, 2, 5])[:, None]
COLUMNS = prompt_columns(TEXT, MASK)
LARGE = dataclasses.replace(SR, conditions=(TEXT_CONDITION, LowRes(16, 2)))


def rows_of(order):
    return {name: column[order] for name, column in COLUMNS.items()}


def task_of(says, **changes):
    """The larger task with a network that says x_0 by a function."""
    return dataclasses.replace(LARGE, model=Network(says), predict="x_0", **changes)


@pytest.fixture(scope="module")
def trained():
    """Two stages that fit, 16 -> 32 px, with parameters moved off their zeros."""
    return [TrainedStage(task, moved(task), SETTINGS) for task in (FLAT, LARGE)]


def test_every_stage_gives_its_picture_in_range(trained):
    small, large = generate(trained, COLUMNS, seeds=jnp.arange(4))
    assert small.shape == (4, 16, 16, 3)
    assert large.shape == (4, 32, 32, 3)
    for picture in (small, large):
        assert float(jnp.abs(picture).max()) <= 1.0
        assert float(picture.std()) > 0.01


def test_a_picture_depends_on_its_prompt_and_seed_and_not_on_its_place_in_the_batch(trained):
    order = jnp.array([2, 0, 3, 1])
    one = generate(trained, COLUMNS, seeds=jnp.arange(4))
    other = generate(trained, rows_of(order), seeds=jnp.arange(4)[order])
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a[order], b, atol=1e-4)


def test_swapping_two_prompts_swaps_the_pictures(trained):
    """At guidance 3, with one seed for both."""
    seeds = jnp.zeros(4, jnp.int32)
    one = generate(trained, COLUMNS, seeds=seeds)
    other = generate(trained, rows_of(jnp.array([1, 0, 2, 3])), seeds=seeds)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a[0], b[1], atol=1e-4)
        np.testing.assert_allclose(a[1], b[0], atol=1e-4)
        assert float(jnp.abs(a[0] - a[1]).max()) > 1e-3


def test_zeroing_the_embedding_makes_the_picture_independent_of_the_prompt(trained):
    pictures = generate(
        trained, prompt_columns(*null_text(TEXT, MASK)), seeds=jnp.zeros(4, jnp.int32)
    )
    for picture in pictures:
        np.testing.assert_allclose(picture, jnp.broadcast_to(picture[:1], picture.shape), atol=1e-5)


def test_another_seed_is_another_picture_and_the_same_seed_the_same(trained):
    (picture,) = generate(trained[:1], rows_of(jnp.zeros(4, int)), seeds=jnp.array([0, 0, 1, 2]))
    np.testing.assert_array_equal(picture[0], picture[1])
    assert float(jnp.abs(picture[0] - picture[2]).max()) > 1e-3


def test_both_halves_of_guidance_share_the_low_resolution_picture_and_its_noise():
    """A network that only copies its condition is left unchanged by any weight."""
    seen = {}

    def copy(x_t, logsnr_t, *, low_res, **told):
        seen["rows"] = low_res.shape[0]
        return low_res

    low_res = jnp.tanh(images(3, (4, 32, 32, 3)))
    given = {**COLUMNS, "low_res": low_res, "aug_logsnr": jnp.zeros(4)}
    for weight in (1.0, 3.0, 8.0):
        settings = dataclasses.replace(SETTINGS, guidance_weight=weight)
        denoise = sampling.denoiser({}, given, COLUMNS, task=task_of(copy), settings=settings)
        np.testing.assert_allclose(denoise(low_res, jnp.zeros(4)), low_res, atol=1e-5)
        assert seen["rows"] == (4 if weight == 1 else 8)


@pytest.mark.parametrize(
    ("threshold", "largest"), [("none", 3.0), ("static", 1.0), ("dynamic", 1.0)]
)
def test_each_threshold_is_the_one_that_is_named(threshold, largest):
    """Of a guess that is 3 in one pixel and 0.5 elsewhere; the dynamic one lowers all of it."""

    def says(x_t, logsnr_t, **told):
        return jnp.full(x_t.shape, 0.5).at[:, 0, 0, 0].set(3.0)

    settings = SampleSettings(guidance_weight=1.0, threshold=threshold, percentile=100.0)
    given = {**COLUMNS, "low_res": jnp.zeros((4, 32, 32, 3)), "aug_logsnr": jnp.zeros(4)}
    denoise = sampling.denoiser({}, given, COLUMNS, task=task_of(says), settings=settings)
    guess = denoise(jnp.zeros((4, 32, 32, 3)), jnp.zeros(4))
    assert float(guess.max()) == pytest.approx(largest)
    rest = 0.5 / 3.0 if threshold == "dynamic" else 0.5
    assert float(guess.min()) == pytest.approx(rest)


def test_the_noise_of_a_row_is_that_of_its_key_and_of_the_tasks_name():
    """Two stages of one seed must not start from the same noise."""
    keys = rng.per_example(jnp.arange(4))
    columns = {**COLUMNS, "low_res": jnp.zeros((4, 16, 16, 3))}
    ready = lambda task: sampling.ready({}, columns, keys, task=task, settings=SETTINGS)  # noqa: E731
    one, other = ready(task_of(jnp.add)), ready(task_of(jnp.add, name="other"))
    expected = rng.normal(rng.stream(rng.stream(keys, "sr"), "x_T"), (4, 32, 32, 3))
    np.testing.assert_array_equal(one.x_T, expected)
    assert float(jnp.abs(one.x_T - other.x_T).min(axis=(1, 2, 3)).max()) < 1.0
    assert not np.array_equal(one.x_T, other.x_T)


def variance_too(x_t, logsnr_t, *, label):
    """A prediction, and the logits of a variance."""
    return jnp.concatenate([jnp.tanh(x_t), x_t + label[:, None, None, None]], axis=-1)


def test_the_program_of_a_chain_does_not_grow_with_its_steps():
    """1,000 steps and 25 of them are as many operations to compile, with a learned variance too."""
    options = config.load("configs/adm.py:digits")
    task = dataclasses.replace(tasks.task_of(options, 0), model=Told(variance_too))
    keys, columns = rng.per_example(jnp.arange(2)), {"label": jnp.arange(2)}

    def operations(num_steps):
        settings = dataclasses.replace(task.settings, num_steps=num_steps)
        assert (settings.sampler, settings.spacing) == ("ddpm_learned", "linspace")
        run = sampling.compiled(sampling.sample, settings)
        return run.lower({}, columns, keys, task=task).as_text().count("\n")

    assert operations(1000) == operations(25) > 100
