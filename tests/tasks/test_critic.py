"""A CLIP as the critic of a task: what it says of pictures, and how it moves samples."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.images import pixels
from diffjax.models.clip.clip import CLEAN, CLIP, unit
from diffjax.models.clip.sizes import CLIPConfig, tower
from diffjax.tasks import critic, sampling
from diffjax.tasks.critic import CLIP_TEXT, ClipCritic
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from tests.tasks import test_space
from tests.tasks.network import Network
from tests.tiny_cascade import Told

CONFIG = CLIPConfig(tower(16, 1, 2), tower(16, 1, 2), 8, 4, 8, vocabulary=24, length=8)
NOISED = dataclasses.replace(CONFIG, noised=True)
KEYS = rng.per_example(jnp.arange(3))
HOW = SampleSettings(num_steps=4, sampler="ddim", threshold="static")


@functools.cache
def params_of(config):
    image, ids = jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 8), jnp.int32)
    return jax.jit(CLIP(config).init)(jax.random.key(0), image, ids)["params"]


def texts(rows=3, seed=0):
    return unit(jax.random.normal(jax.random.key(seed), (rows, 8)))


def pictures(side_px, rows=3):
    return jnp.tanh(jax.random.normal(jax.random.key(1), (rows, side_px, side_px, 3)))


def by_noise(x_t, logsnr_t):
    return 0.5 * jnp.tanh(x_t)


@functools.cache
def asked(judge):
    return jax.jit(judge.log_prob)


def log_prob(judge, params, x, logsnr):
    told = {CLIP_TEXT: texts()}
    return np.asarray(asked(judge)(critic.weights_of(params), told, jnp.asarray(x), logsnr))


def product(config, x):
    """The cosines of pictures and texts, by the CLIP itself."""
    run = functools.partial(CLIP(config).apply, method="of_image")
    return np.sum(unit(jax.jit(run)({"params": params_of(config)}, x)) * texts(), axis=1)


def task_of(config, side_px=8):
    weights = critic.weights_of(params_of(config))
    return Denoising(
        "toy", Told(by_noise), (side_px, side_px, 3), predict="x_0",
        critic=ClipCritic(CLIP(config)), frozen={"critic": weights},
    )  # fmt: skip


def made(task, scale=0.0, columns=None, **changes):
    settings = dataclasses.replace(HOW, clip_guidance=scale, **changes)
    run = sampling.compiled(sampling.sample, settings)
    return np.asarray(run({}, columns or {CLIP_TEXT: texts()}, KEYS, task=task))


@pytest.mark.parametrize("side_px", [8, 16])
def test_a_clip_says_its_logit_of_a_picture_and_a_prompt(side_px):
    x, params = pictures(side_px), params_of(CONFIG)
    said = log_prob(ClipCritic(CLIP(CONFIG)), params, x, jnp.zeros(3))
    wanted = product(CONFIG, pixels.resize(x, 8, 8))
    np.testing.assert_allclose(said, np.exp(params["log_scale"]) * wanted, rtol=1e-4)


def test_a_clip_of_noised_pictures_is_told_their_level_and_other_clips_are_not():
    x = pictures(8)
    for config in (CONFIG, NOISED):
        params, judge = params_of(config), ClipCritic(CLIP(config))
        noisy, clean = (log_prob(judge, params, x, jnp.full(3, at)) for at in (-2.0, CLEAN))
        assert (noisy == clean).all() == judge.of_clean == (config is CONFIG)
        wanted = np.exp(params["log_scale"]) * product(config, x)
        np.testing.assert_allclose(clean, wanted, rtol=1e-4)


@pytest.mark.parametrize("config", [CONFIG, NOISED], ids=["clean", "noised"])
def test_scale_zero_is_no_guidance_bit_for_bit_and_more_fits_the_prompt_better(config):
    task = task_of(config)
    alone = dataclasses.replace(task, critic=None, frozen={})
    plain = made(alone)
    np.testing.assert_array_equal(made(task), plain)
    np.testing.assert_array_equal(made(alone, 3.0), plain)  # nobody guides
    guided = made(task, 1.0)
    fit = [log_prob(task.critic, params_of(config), x, jnp.full(3, CLEAN)) for x in (guided, plain)]
    assert (fit[0] > fit[1]).all()


def test_a_row_is_guided_by_its_own_prompt_alone():
    task, others = task_of(NOISED), texts(seed=5)
    mixed = jnp.stack([texts()[0], others[1], texts()[2]])
    wanted, got = made(task, 1.0), made(task, 1.0, {CLIP_TEXT: mixed})
    np.testing.assert_allclose(got[[0, 2]], wanted[[0, 2]], atol=1e-6)
    assert np.abs(got[1] - wanted[1]).max() > 1e-3


def test_a_blank_prompt_guides_nowhere():
    task = task_of(NOISED)
    blank = made(task, 5.0, {CLIP_TEXT: jnp.zeros((3, 8))})
    np.testing.assert_allclose(blank, made(task), atol=1e-6)


def test_outside_the_interval_of_guidance_no_critic_is_followed():
    task = task_of(NOISED)
    never = made(task, 5.0, guidance_from=90.0, guidance_to=100.0)
    np.testing.assert_allclose(never, made(task), atol=1e-6)
    assert np.abs(made(task, 5.0) - never).max() > 1e-3


@pytest.mark.slow
def test_latents_are_guided_by_the_pictures_that_are_decoded_from_them():
    """z_0 + 2 (sigma^2 / alpha) times the gradient of the logit of decoded z_0, by the latent."""
    space, weights = test_space.space_of(), test_space.weights_of()
    judge, params = ClipCritic(CLIP(CONFIG)), critic.weights_of(params_of(CONFIG))
    task = test_space.task_of(Network(lambda x_t, logsnr_t: x_t), space)
    task = dataclasses.replace(task, critic=judge, frozen={**task.frozen, "critic": params})
    settings = dataclasses.replace(HOW, threshold="none", clip_guidance=2.0)
    columns, levels = {CLIP_TEXT: texts()}, jnp.full(3, 0.7)
    z = jax.random.normal(jax.random.key(2), (3, 4, 4, 2))

    def half(z, logsnr_t):
        return 0.5 * z

    def logit(z):
        return judge.log_prob(params, columns, space.decode(weights, 0.5 * z), levels).sum()

    def guided(z, columns):
        return sampling.criticised(half, columns, task, judge, settings)(z, levels)

    gradient = np.asarray(jax.jit(jax.grad(logit))(z))
    alpha, sigma = np.sqrt(1 / (1 + np.exp(-0.7))), np.sqrt(1 / (1 + np.exp(0.7)))
    wanted = 0.5 * z + 2.0 * sigma**2 / alpha * gradient
    assert np.abs(gradient).max() > 1e-3
    np.testing.assert_allclose(jax.jit(guided)(z, columns), wanted, rtol=1e-4, atol=1e-5)
