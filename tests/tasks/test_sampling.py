import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.diffusion.schedule import cosine
from diffjax.generation.chain import TrainedStage, generate, prompt_columns
from diffjax.tasks import sampling
from diffjax.tasks.conditions import LowRes
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.text import null_text
from tests.diffusion.helpers import images
from tests.tasks.network import Network
from tests.tasks.stages import BASE, SR, moved
from tests.tasks.stages import TEXT as TEXT_CONDITION

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
    return [TrainedStage(task, moved(task), SETTINGS) for task in (BASE, LARGE)]


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


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("weight", [0.5, 1.0, 4.0])
def test_guidance_is_w_times_conditional_and_one_less_w_times_the_other_half(weight, negative):
    """A second writing in NumPy, for a network whose answers tell text, mask and picture apart."""

    def says(x_t, logsnr_t, *, text, text_mask, low_res, aug_logsnr):
        seen = jnp.sum(text * text_mask[..., None], axis=(1, 2)) / (1.0 + text_mask.sum(1))
        return 0.1 * jnp.tanh(seen)[:, None, None, None] + 0.05 * low_res + 0.01 * x_t

    def naive(x_t, text, mask, low_res):
        text, mask, low_res, x_t = (np.asarray(x, np.float64) for x in (text, mask, low_res, x_t))
        seen = (text * mask[..., None]).sum((1, 2)) / (1.0 + mask.sum(1))
        return 0.1 * np.tanh(seen)[:, None, None, None] + 0.05 * low_res + 0.01 * x_t

    low_res, x_t = jnp.tanh(images(3, (4, 32, 32, 3))), images(4, (4, 32, 32, 3))
    given = {**COLUMNS, "low_res": low_res, "aug_logsnr": jnp.zeros(4)}
    columns = dict(COLUMNS)
    other_text, other_mask = null_text(TEXT, MASK)
    if negative:
        other_text, other_mask = TEXT[::-1] + 0.5, MASK[::-1]
        columns |= {"negative_text": other_text, "negative_text_mask": other_mask}
    settings = SampleSettings(guidance_weight=weight, threshold="none")
    guess = sampling.denoiser({}, given, columns, task=task_of(says), settings=settings)
    conditional, other = (
        naive(x_t, TEXT, MASK, low_res),
        naive(x_t, other_text, other_mask, low_res),
    )
    expected = weight * conditional + (1 - weight) * other
    np.testing.assert_allclose(guess(x_t, jnp.zeros(4)), expected, atol=3e-6)


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


def test_the_level_fed_is_the_level_applied():
    """aug_level reaches both the noise and the number that the network is told."""
    told = {}

    def spy(x_t, logsnr_t, *, low_res, aug_logsnr, **text):
        jax.debug.callback(lambda a, s: told.update(a=a, s=s), aug_logsnr, low_res.std())
        return low_res

    deviations = []
    columns = {**COLUMNS, "low_res": jnp.zeros((4, 16, 16, 3))}
    for level in (0.1, 0.6):
        settings = dataclasses.replace(SETTINGS, guidance_weight=1.0, aug_level=level)
        generate([TrainedStage(task_of(spy), {}, settings)], columns, seeds=jnp.arange(4))
        jax.effects_barrier()
        np.testing.assert_allclose(told["a"], cosine()(level), rtol=1e-5)
        deviations.append(float(told["s"]))
    ratio = np.sin(0.6 * np.pi / 2) / np.sin(0.1 * np.pi / 2)
    assert deviations[1] / deviations[0] == pytest.approx(ratio, rel=0.01)


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
