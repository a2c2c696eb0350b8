"""The diffusion prior, against Gaussian vectors whose distribution given a text is known.

z = A y + noise, where y is the vector of the text and the numbers of the noise are independent. So
the mean of z_0 given z_t has a closed form, and a network that says it is the best one.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax.diffusion.schedule import discrete_cosine
from diffjax.models.prior import Prior
from diffjax.tasks import prior
from diffjax.tasks.conditions import Text
from diffjax.tasks.prior import DiffusionPrior
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.vectors import TextVector, image_vector
from tests.tasks.network import Network
from tests.tasks.stages import KEY, STEP

A = np.array([[0.8, -0.3, 0.1], [0.2, 0.5, -0.4], [-0.1, 0.4, 0.6]], np.float32)
VARIANCE = np.array([0.3, 0.1, 0.2], np.float32)
SCALE, ROWS, STEPS = 2.0, 8192, 3_000
QUICK = SampleSettings(2, threshold="none")
TEXT = np.array([0.6, -0.8, 0.0], np.float32)


def best(x_t, logsnr_t, text_vector, **told):
    """E[z_0 | z_t, y]: between the mean of z_0 given y and what z_t says."""
    mean, variance = SCALE * text_vector @ A.T, SCALE**2 * VARIANCE
    signal, noise = (jax.nn.sigmoid(s * logsnr_t)[:, None] for s in (1, -1))
    gain = jnp.sqrt(signal) * variance / (signal * variance + noise)
    return mean + gain * (x_t - jnp.sqrt(signal) * mean)


def task_of(network, best_of=1, sampler="ddpm", num_steps=64):
    return DiffusionPrior(
        "prior",
        network,
        (3,),
        (Text(4, 1, drop=0.1), TextVector(3)),
        discrete_cosine(),
        predict="x_0",
        weighting="x_0",
        settings=SampleSettings(num_steps, sampler, threshold="none"),
        of="image_vector",
        scale=SCALE,
        best_of=best_of,
    )


def columns_of(rows=ROWS):
    return {
        "text": jnp.zeros((rows, 1, 4)),
        "text_mask": jnp.ones((rows, 1), bool),
        "text_vector": jnp.broadcast_to(TEXT, (rows, 3)),
    }


def drawn(task, params=None, rows=ROWS):
    keys = jax.random.split(KEY, rows)
    run = jax.jit(functools.partial(prior.raw, task=task, settings=task.settings))
    return np.asarray(run(params or {}, columns_of(rows), keys), np.float64)


@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", 64), ("ddim", 64), ("dpmpp_2m", 32)])
def test_samples_have_the_mean_and_the_covariance_of_a_known_distribution(sampler, steps):
    made = drawn(task_of(Network(best), sampler=sampler, num_steps=steps))
    np.testing.assert_allclose(made.mean(0), A @ TEXT, atol=0.05)
    np.testing.assert_allclose(np.cov(made.T), np.diag(VARIANCE), atol=0.05)


def test_the_better_of_two_raises_the_product_with_the_text_as_it_must():
    one, two = (drawn(task_of(Network(best), n)) @ TEXT for n in (1, 2))
    mean, deviation = TEXT @ A @ TEXT, np.sqrt(TEXT @ (VARIANCE * TEXT))
    np.testing.assert_allclose(one.mean(), mean, atol=0.03)
    # of the larger of two Gaussians
    np.testing.assert_allclose(two.mean(), mean + deviation / np.sqrt(np.pi), atol=0.03)
    np.testing.assert_allclose(two.std(), deviation * np.sqrt(1 - 1 / np.pi), atol=0.03)


@pytest.mark.slow
def test_a_trained_network_makes_vectors_of_the_known_distribution():
    network = Prior(width=32, num_blocks=1, num_heads=1, length=1)
    task, tx = task_of(network), optax.adam(optax.cosine_decay_schedule(5e-3, STEPS))
    params = jax.jit(task.init)(KEY)

    def batch_of(key):
        key_text, key_noise = jax.random.split(key)
        text = jax.random.normal(key_text, (128, 3))
        text = text / jnp.linalg.norm(text, axis=-1, keepdims=True)
        noise = jnp.sqrt(VARIANCE) * jax.random.normal(key_noise, text.shape)
        return {
            "image_vector": text @ A.T + noise,
            "text_vector": text,
            "text": jnp.zeros((128, 1, 4), jnp.bfloat16),
            "text_length": jnp.full(128, 1),
        }

    @jax.jit
    def step(state, key):
        params, opt_state = state
        batch = task.draw(key, batch_of(key), STEP)
        found = lambda params: jnp.mean(task.loss(params, batch).per_example)  # noqa: E731
        updates, opt_state = tx.update(jax.grad(found)(params), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    run = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys)[0])
    params, _ = run((params, tx.init(params)), jax.random.split(KEY, STEPS))
    made = drawn(task, params)
    np.testing.assert_allclose(made.mean(0), A @ TEXT, atol=0.05)
    np.testing.assert_allclose(np.cov(made.T), np.diag(VARIANCE), atol=0.05)


def test_a_row_without_its_text_is_told_neither_its_tokens_nor_its_vector():
    batch = {
        "image_vector": jnp.ones((64, 3)),
        "text_vector": jnp.ones((64, 3)),
        "text": jnp.ones((64, 1, 4)),
        "text_length": jnp.full(64, 1),
    }
    task = dataclasses.replace(
        task_of(Network(best)), conditions=(Text(4, 1, drop=0.5), TextVector(3))
    )
    _, told = task.seen(task.draw(KEY, batch, STEP))
    tokens, vector = (np.asarray(jnp.any(told[k] != 0, axis=-1)) for k in ("text", "text_vector"))
    np.testing.assert_array_equal(tokens.any(axis=1), vector)
    assert 0 < vector.sum() < 64


def test_vectors_are_learned_at_a_scale_and_given_back_as_unit_vectors():
    task, z = task_of(Network(best)), jnp.array([[0.6, 0.0, 0.8]])
    np.testing.assert_allclose(task.clean({"image_vector": z}), SCALE * z)
    np.testing.assert_allclose(task.pictured(task.learned(z)), z)
    keys = jax.random.split(KEY, 4)
    made = image_vector({}, columns_of(4), keys, task=task, settings=QUICK)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    others = dataclasses.replace(task, frozen={"mean": z[0], "std": jnp.array([1.0, 2.0, 4.0])})
    learned = others.learned(jnp.array([[1.6, 2.0, 0.8]]))
    np.testing.assert_allclose(learned, [[1, 1, 0]], atol=1e-6)
    np.testing.assert_allclose(others.pictured(learned), [[1.6, 2.0, 0.8]], atol=1e-6)


def test_a_preview_shows_the_picture_whose_vector_is_nearest_to_the_one_that_was_made():
    vectors = jnp.eye(3)
    # whatever the noise, it says the vector of the text
    network = Network(lambda x_t, logsnr_t, text_vector, **told: SCALE * text_vector)
    batch = {
        "image_vector": vectors,
        "text_vector": vectors[::-1],
        "text": jnp.zeros((3, 1, 4)),
        "text_length": jnp.full(3, 1),
        "image": jnp.asarray(np.array([0, 127, 255], np.uint8)[:, None, None, None]),
    }
    task = task_of(network, num_steps=2)
    made = task.preview({}, batch, jax.random.split(KEY, 3))
    np.testing.assert_allclose(made["made"].ravel(), [1, -1 / 255, -1], atol=1e-6)
    np.testing.assert_allclose(made["made_vector"], vectors[::-1], atol=1e-5)


def test_vectors_have_no_threshold():
    with pytest.raises(ValueError, match="vectors are not bounded"):
        prior.raw({}, columns_of(2), jax.random.split(KEY, 2), task=task_of(Network(best)),
                  settings=SampleSettings(2))  # fmt: skip
