"""Times drawn by importance: their history is part of the train state, and biases nothing."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax.build import tasks
from diffjax.build.options import config
from diffjax.core.digest import digest_of
from diffjax.core.trees import named_leaves
from diffjax.diffusion.training import times
from diffjax.tasks.denoising import Denoising
from diffjax.training import averages, loop, state, step
from tests.tasks.network import Network
from tests.test_extending import RULES, run_of, trained

KEY = jax.random.key(0)


class Toy(nn.Module):
    """x_0 of a vector and its level."""

    sharding: ClassVar = RULES

    @nn.compact
    def __call__(self, x_t, logsnr_t):
        return nn.Dense(4)(nn.silu(nn.Dense(16)(jnp.append(x_t, logsnr_t[:, None] / 10, axis=-1))))


TASK = Denoising(
    "toy", Toy(), (4,), predict="x_0", weighting="x_0", of="x", times=times.Importance(2)
)


def tilted(params, x_t, logsnr_t):
    """Where x_0 is 0 its error is (weight tanh(logsnr / 5))^2."""
    return jnp.zeros_like(x_t) + params["weight"] * jnp.tanh(logsnr_t / 5)[:, None]


class Tilted(Network):
    def __init__(self):
        super().__init__(None)
        self.apply = lambda variables, x_t, logsnr_t: tilted(variables["params"], x_t, logsnr_t)


def test_the_gradient_of_a_step_is_in_expectation_that_of_uniform_times():
    """With a history as uneven as can be: the mean over 400 batches, against a fine sum over u."""
    task = Denoising(
        "tilted", Tilted(), (4,), predict="x_0", weighting="x_0", of="x", times=times.Importance(4)
    )
    levels = jnp.array([3.0, 0.1, 0.5, 1.0])
    memory = times.History(jnp.tile(levels[:, None], (1, 10)), jnp.full(4, 10))

    def gradient(key):
        batch = task.draw(key, {"x": jnp.zeros((64, 4))}, jnp.int32(0), memory)
        loss = lambda params: jnp.mean(task.loss(params, batch).per_example)  # noqa: E731
        return jax.grad(loss)({"weight": jnp.float32(1.5)})["weight"], batch["u"]

    found, u = jax.jit(jax.vmap(gradient))(jax.random.split(KEY, 400))
    fine = (np.arange(100_000) + 0.5) / 100_000
    want = np.mean(2 * 1.5 * np.tanh(np.asarray(task.schedule(jnp.asarray(fine))) / 5) ** 2)
    error = float(jnp.std(found)) / np.sqrt(len(found))
    assert float(jnp.mean(found)) == pytest.approx(want, abs=4 * error)
    assert error < 0.02 * want
    share = np.bincount(np.asarray(times.bin_of(u.ravel(), 4)), minlength=4) / u.size
    np.testing.assert_allclose(share, 0.999 * levels / levels.sum() + 0.00025, atol=0.02)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Six steps on one device."""
    return trained(TASK, tmp_path_factory.mktemp("whole"))


def test_cut_twice_a_run_remembers_and_ends_where_one_that_was_not_cut_does(whole, tmp_path):
    final, _ = whole
    for num_steps in (2, 4):
        loop.train(run_of(TASK, tmp_path, num_steps=num_steps))
    again, _ = trained(TASK, tmp_path)
    assert digest_of(again, {}) == digest_of(final, {})
    # six batches of 16 losses have filled both bins; the last weights are no longer all 1
    assert (np.asarray(final.memory.counts) >= 10).all()
    assert float(jnp.std(final.memory.losses)) > 0


def test_eight_devices_remember_what_one_does(whole, tmp_path):
    final, _ = whole
    eight, _ = trained(TASK, tmp_path, devices=8)
    np.testing.assert_array_equal(eight.memory.counts, final.memory.counts)
    np.testing.assert_allclose(eight.memory.losses, final.memory.losses, rtol=1e-4)
    for a, b in zip(jax.tree.leaves(eight.params), jax.tree.leaves(final.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


AVERAGES, TX = averages.parse(["decay_0.9"]), optax.sgd(0.1)
FULL = times.History(jnp.tile(jnp.array([[3.0], [0.2]]), (1, 10)), jnp.full(2, 10))


def stepped(x, memory=FULL, task=TASK, **options):
    """The state after one step from this memory, and its metrics."""
    start = state.create(task.init, TX, AVERAGES, KEY).replace(memory=memory)
    options = dict(task=task, tx=TX, root_key=KEY, averages=AVERAGES, **options)
    return jax.jit(lambda s, b: step.train_step(s, b, **options))(start, {"x": x})


X = jax.random.normal(KEY, (16, 4))


def test_micro_batches_do_not_change_what_is_remembered():
    one, _ = stepped(X)
    parts, _ = stepped(X, parts=4)
    assert not np.array_equal(one.memory.losses, FULL.losses)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_bad_batch_is_not_remembered():
    after, metrics = stepped(X.at[3].set(jnp.nan))
    assert float(metrics["skipped"]) == 1.0
    np.testing.assert_array_equal(after.memory.losses, FULL.losses)
    np.testing.assert_array_equal(after.memory.counts, FULL.counts)


def test_what_is_remembered_is_the_loss_without_the_weight_of_its_time():
    objective = TASK.learning.objective_of(TASK.schedule, "x_0", "x_0")

    @jax.jit
    def both(key):
        drawn, params = TASK.draw(key, {"x": X}, jnp.int32(0), FULL), TASK.init(key)
        errors = objective(TASK.bind(params, {}), X, drawn["eps"], drawn["u"])
        found = TASK.remember(FULL, drawn, TASK.loss(params, drawn))
        return found, times.record(FULL, drawn["u"], errors), drawn["weight"]

    found, want, weight = both(KEY)
    np.testing.assert_allclose(found.losses, want.losses, rtol=1e-5)
    assert len(np.unique(weight)) == 2


def test_a_task_that_remembers_nothing_has_a_state_without_memory():
    """So states and digests of older checkpoints are what they were."""
    plain = dataclasses.replace(TASK, times=times.uniform)
    made = state.create(plain.init, TX, AVERAGES, KEY, memory=plain.first_memory)
    assert made.memory is None
    assert {name.partition("/")[0] for name in named_leaves(made)} == {
        "step", "params", "ema_params",
    }  # fmt: skip


def test_a_config_asks_for_importance_with_a_bin_for_each_level():
    options = config.load("configs/digits.py:tiny")
    options.diffusion.update(times="importance", num_levels=7)
    assert tasks.task_of(options, 0).times == times.Importance(7)
