"""The task of a classifier of noised pictures: its loss, its answers by level, and its preview."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.diffusion import schedule, table
from diffjax.tasks.classifying import CONFIDENCE, EDGES, RIGHT, Classifying, names_of
from tests.tasks.network import Network

CLASSES = 3


def logits(x_t, logsnr_t):
    """Which channel is brightest, told with more doubt the noisier the picture is said to be."""
    return jnp.mean(x_t, axis=(1, 2)) * jax.nn.sigmoid(logsnr_t)[:, None] * 8.0


def task_of(noise=None, says=logits):
    model = Network(says)
    return Classifying("toy", model, 4, CLASSES, schedule=noise or schedule.cosine())


def batch_of(rows=64):
    label = jnp.arange(rows) % CLASSES
    bright = jax.nn.one_hot(label, 3)[:, None, None, :] * 200
    return {"image": jnp.broadcast_to(bright, (rows, 4, 4, 3)).astype(jnp.uint8), "label": label}


def test_the_loss_is_the_cross_entropy_of_the_picture_noised_to_its_level():
    task, batch = task_of(), batch_of(6)
    drawn = task.draw(jax.random.key(0), batch, jnp.int32(0))
    losses = task.loss({}, drawn)
    u, eps = np.asarray(drawn["u"], np.float64), np.asarray(drawn["eps"], np.float64)
    level = np.asarray(schedule.cosine()(drawn["u"]), np.float64)
    alpha, sigma = (np.sqrt(1 / (1 + np.exp(sign * level))) for sign in (-1, 1))
    x_0 = np.asarray(batch["image"], np.float64) / 127.5 - 1
    x_t = alpha[:, None, None, None] * x_0 + sigma[:, None, None, None] * eps
    said = x_t.mean(axis=(1, 2)) / (1 + np.exp(-level))[:, None] * 8
    log_p = said - np.log(np.exp(said).sum(axis=1, keepdims=True))
    label = np.asarray(batch["label"])
    np.testing.assert_allclose(
        losses.per_example, -log_p[np.arange(6), label], rtol=1e-3, atol=1e-5
    )
    np.testing.assert_array_equal(losses.metrics[RIGHT], log_p.argmax(axis=1) == label)
    assert ((u >= 0) & (u < 1)).all()


def test_right_answers_are_counted_in_the_bin_of_their_level_alone():
    task, batch = task_of(), batch_of(3)
    drawn = task.draw(jax.random.key(0), batch, jnp.int32(0))
    levels = jnp.array([-20.0, 1.0, 30.0])  # outside of the bins, the outermost count
    task = task_of(noise=lambda u: levels)
    found = task.loss({}, drawn).metrics
    there = np.array([~np.isnan(found[name]) for name in names_of(RIGHT)])
    wanted = np.zeros((len(EDGES) - 1, 3), bool)
    wanted[[0, 3, 5], [0, 1, 2]] = True
    np.testing.assert_array_equal(there, wanted)


def test_a_network_that_tells_nothing_has_the_loss_of_chance():
    task, batch = task_of(says=lambda x_t, logsnr_t: jnp.zeros((len(x_t), CLASSES))), batch_of()
    losses = task.loss({}, task.draw(jax.random.key(0), batch, jnp.int32(0)))
    np.testing.assert_allclose(losses.per_example, task.loss_by_chance(64), rtol=1e-6)
    assert task.loss_by_chance(64) == pytest.approx(math.log(CLASSES))


def test_a_chain_trains_at_the_steps_of_its_table_alone():
    steps = table.logsnr_table(table.linear_betas(num_steps=10, beta_max=0.5))
    task, batch = task_of(table.staircase(steps)), batch_of(500)
    drawn = task.draw(jax.random.key(0), batch, jnp.int32(0))
    found, counts = np.unique(np.asarray(task.schedule(drawn["u"])), return_counts=True)
    np.testing.assert_allclose(found, np.sort(steps), rtol=1e-5)
    assert counts.min() > 20  # of 50, with a deviation of 7


def test_the_preview_says_how_sure_each_answer_is_at_each_level_that_the_schedule_has():
    task, batch = task_of(schedule.cosine(logsnr_min=-3.9, logsnr_max=20.0)), batch_of(6)
    keys = rng.per_example(jnp.arange(6))
    made = task.preview({}, batch, keys)
    assert made["made"].shape == (6, 4, 4, 3)
    sure, right = np.asarray(made[CONFIDENCE]), np.asarray(made[RIGHT])
    assert np.isnan(sure[:, :2]).all()
    assert (np.isnan(sure) == np.isnan(right)).all()
    assert (sure[:, 5] > sure[:, 3]).all()
    assert right[:, 4:].all()
    fewer = task.preview({}, {name: rows[:2] for name, rows in batch.items()}, keys[:2])
    np.testing.assert_allclose(fewer[CONFIDENCE], sure[:2], rtol=1e-6)
