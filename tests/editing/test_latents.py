"""Edits of a stage that learns latents: encoded first, decoded last."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion.process import diffuse
from diffjax.editing import img2img, inpaint, morph
from diffjax.generation.chain import TrainedStage, generate
from diffjax.tasks.settings import SampleSettings
from tests.tasks import test_space
from tests.tasks.network import Network
from tests.tasks.test_space import picture_of, space_of, task_of

SETTINGS = SampleSettings(2, "ddim", guidance_weight=1.0, threshold="none")
SEEDS = jnp.array([3, 8])
PROMPT = morph.Prompt(jnp.zeros((1, 4, 2)), jnp.ones((1, 4), bool))


def half(x_t, logsnr_t, **told):
    """A guess of x_0 that depends on what it sees."""
    return 0.5 * x_t + 0.25


@functools.cache
def stage_of(says):
    task = dataclasses.replace(task_of(Network(says), space_of()), predict="x_0")
    return TrainedStage(task, {}, SETTINGS)


def decoded(task, z):
    return np.clip(test_space.decoded(task.space, task.frozen["space"], z), -1.0, 1.0)


def encoded(task, picture):
    return test_space.encoded(task.space, task.frozen["space"], picture)


def by_hand(x, rungs):
    """DDIM's way down from x with the guesses of `half`."""
    for t, s in itertools.pairwise(rungs):
        alpha_t, sigma_t = np.sqrt(1 / (1 + np.exp(-t))), np.sqrt(1 / (1 + np.exp(t)))
        alpha_s, sigma_s = np.sqrt(1 / (1 + np.exp(-s))), np.sqrt(1 / (1 + np.exp(s)))
        guess = half(x, t)
        x = alpha_s * guess + sigma_s * (x - alpha_t * guess) / sigma_t
    return x


def test_img2img_noises_the_latent_of_the_picture_and_decodes_what_comes():
    stage, picture = stage_of(half), picture_of()
    task = stage.task
    (made,) = img2img.img2img([stage], {}, picture=picture, strength=0.5, seeds=SEEDS)
    (rungs,) = img2img.ladders([stage], 0.5)
    noise = morph.first_noise(task, jax.vmap(jax.random.key)(SEEDS))
    x_t = np.asarray(diffuse(encoded(task, picture), noise, jnp.full(2, rungs[0])))
    z = by_hand(x_t.astype(np.float64), np.append(np.asarray(rungs[:-1], np.float64), 60.0))
    np.testing.assert_allclose(made, decoded(task, jnp.asarray(z, jnp.float32)), atol=2e-3)
    assert made.shape == picture.shape


def test_inpainting_leaves_known_pixels_as_they_are_and_never_reads_the_others():
    stage, picture = stage_of(half), picture_of()
    mask = jnp.zeros((2, 8, 8, 1), bool).at[:, 2:5, 3:6].set(True)
    other = jnp.where(mask, 0.9, picture)
    made, again = (
        inpaint.inpaint([stage], {}, picture=one, mask=mask, seeds=SEEDS, resample=[1])[0]
        for one in (picture, other)
    )
    np.testing.assert_array_equal(np.where(mask, 0, made), np.where(mask, 0, picture))
    np.testing.assert_array_equal(made, again)
    assert np.abs(np.where(mask, made - picture, 0)).max() > 0.01


@pytest.mark.slow
def test_places_of_the_latent_without_an_unknown_pixel_stay_those_of_the_picture():
    """All others become what the network says, which is 2."""
    stage, picture = stage_of(lambda x_t, logsnr_t, **told: jnp.full_like(x_t, 2.0)), picture_of()
    mask = jnp.zeros((2, 8, 8, 1), bool).at[:, :3, 2:4].set(True)
    (made,) = inpaint.inpaint([stage], {}, picture=picture, mask=mask, seeds=SEEDS, resample=[1])
    hole = jnp.zeros((2, 4, 4, 1), bool).at[:, :2, 1:2].set(True)
    z = jnp.where(hole, 2.0, encoded(stage.task, inpaint.filled(picture, mask)))
    expected = jnp.where(mask, decoded(stage.task, z), picture)
    np.testing.assert_allclose(made, expected, atol=1e-4)


def test_unknown_pixels_are_filled_with_the_mean_of_the_smallest_square_that_knows_some():
    picture = jnp.arange(16.0).reshape(1, 4, 4, 1)
    mask = jnp.zeros((1, 4, 4, 1), bool).at[:, :2, :2].set(True).at[0, 3, 3].set(True)
    made = np.asarray(inpaint.filled(picture, mask))[0, :, :, 0]
    known = np.delete(np.arange(16.0), [0, 1, 4, 5, 15])
    expected = np.arange(16.0).reshape(4, 4)
    expected[:2, :2], expected[3, 3] = known.mean(), (10 + 11 + 14) / 3
    np.testing.assert_allclose(made, expected, rtol=1e-6)


def test_a_picture_comes_back_from_the_noise_that_it_is_inverted_to():
    stage, pictures = stage_of(half), picture_of()
    noises = morph.noises_of([stage], PROMPT, PROMPT, pictures, seed=1, level=0.0)
    assert noises[0].shape == (2, 4, 4, 2)
    frames = morph.between_pictures(
        [stage], PROMPT, PROMPT, noises, jnp.array([0.0, 1.0]), seed=1
    )[-1]  # fmt: skip
    truth = decoded(stage.task, encoded(stage.task, pictures))
    assert frames.shape == pictures.shape
    assert np.isfinite(np.asarray(frames)).all()
    assert np.abs(np.asarray(frames) - truth).mean() < np.abs(truth).mean()


def test_a_path_between_prompts_begins_with_the_picture_of_its_first_prompt():
    stage = stage_of(half)
    first = generate([stage], {}, seeds=jnp.array([3]))[0]
    frames = morph.between_prompts([stage], PROMPT, PROMPT, jnp.array([0.0, 1.0]), seeds=(3, 3))[0]
    np.testing.assert_allclose(frames[:1], first, atol=1e-4)


def test_latents_refuse_the_threshold_of_a_setting():
    stage = stage_of(half)
    clipped = dataclasses.replace(stage, settings=dataclasses.replace(SETTINGS, threshold="static"))
    with pytest.raises(ValueError, match="latents are not bounded"):
        generate([clipped], {}, seeds=SEEDS)
