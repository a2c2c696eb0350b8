"""The task of a student: what its loss compares, what it trains, and what stays."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.devices import mesh as mesh_lib
from diffjax.diffusion.predict import to_x_0
from diffjax.diffusion.process import diffuse
from diffjax.diffusion.sampling.spacing import SPACINGS
from diffjax.tasks import sampling
from diffjax.tasks.conditions import null_text
from diffjax.tasks.distilling import NESTED, Distilled
from diffjax.tasks.settings import SampleSettings
from tests.tasks.stages import KEY, MIXED, STEP, batch_of, moved

SETTINGS = SampleSettings(num_steps=2, sampler="ddim", threshold="none", aug_level=0.0)
GUIDED = dataclasses.replace(SETTINGS, guidance_weight=2.0)
STUDENT = dataclasses.replace(MIXED, settings=SETTINGS, weighting="truncated_snr")


def distilled(of=STUDENT, teacher_steps=4, guided=GUIDED):
    frozen = {"teacher": moved(of), "own": {}}
    return Distilled(of, teacher_steps, guided, frozen=frozen)


def drawn(task, rows=8):
    batch = jax.tree.map(jnp.asarray, batch_of(16, rows))
    return task.draw(KEY, batch, STEP)


def test_a_student_begins_as_its_teacher():
    task = distilled()
    first = jax.jit(task.init)(KEY)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, first, task.frozen["teacher"])))


def test_the_loss_is_the_weighted_distance_to_where_two_guided_steps_of_the_teacher_lead():
    task = distilled()
    batch = drawn(task)
    params = jax.tree.map(lambda x: x + 0.02, task.frozen["teacher"])
    losses = jax.jit(task.loss)(params, batch)

    # the same step by step, in terms of v and eps, for one row after the other
    rungs = np.asarray(SPACINGS["uniform"](STUDENT.schedule, 4), np.float64)
    x_0, told = STUDENT.seen(batch)
    text, mask = null_text(told["text"], told["text_mask"])
    null = {**told, "text": text, "text_mask": mask}
    for row in range(4):
        first = 0 if batch["u"][row] > 0.5 else 2

        def guess(params, told, x, logsnr, row=row):
            one = {name: column[row : row + 1] for name, column in told.items()}
            at = jnp.full(1, logsnr, jnp.float32)
            says = STUDENT.model.apply({"params": params}, x, at, **one)
            return np.asarray(to_x_0(says, x, at, "v"), np.float64)

        x_t = diffuse(
            x_0[row : row + 1], batch["eps"][row : row + 1], jnp.full(1, rungs[first], jnp.float32)
        )
        x = np.asarray(x_t, np.float64)
        for at, to in ((rungs[first], rungs[first + 1]), (rungs[first + 1], rungs[first + 2])):
            (a_t, s_t), (a_s, s_s) = parts(at), parts(to)
            here = jnp.asarray(x, jnp.float32)
            with_text = guess(task.frozen["teacher"], told, here, at)
            without = guess(task.frozen["teacher"], null, here, at)
            hat = without + 2.0 * (with_text - without)
            x = a_s * hat + s_s * (x - a_t * hat) / s_t
        (a_t, s_t), (a_s, s_s) = parts(rungs[first]), parts(rungs[first + 2])
        target = (x - s_s / s_t * np.asarray(x_t)) / (a_s - s_s / s_t * a_t)
        error = np.mean((guess(params, told, x_t, rungs[first]) - target) ** 2)
        weight = max(np.exp(rungs[first]), 1.0) * float(batch["weight"][row])
        np.testing.assert_allclose(losses.per_example[row], weight * error, rtol=2e-3)


def parts(logsnr):
    """alpha and sigma in float64."""
    return np.sqrt(1 / (1 + np.exp(-logsnr))), np.sqrt(1 / (1 + np.exp(logsnr)))


def test_a_student_that_is_its_teacher_has_no_loss_in_single_steps():
    task = distilled(teacher_steps=2, guided=SETTINGS)
    params = jax.jit(task.init)(KEY)
    losses = jax.jit(task.loss)(params, drawn(task))
    np.testing.assert_allclose(losses.per_example, 0, atol=1e-6)


def test_gradients_are_of_the_student_alone():
    task = distilled()
    batch = drawn(task)

    def mean(params, teacher):
        own = dataclasses.replace(task, frozen={**task.frozen, "teacher": teacher})
        return jnp.mean(own.loss(params, batch).per_example)

    params = jax.tree.map(lambda x: x + 0.1, task.frozen["teacher"])
    ours, theirs = jax.jit(jax.grad(mean, argnums=(0, 1)))(params, task.frozen["teacher"])
    assert all(np.any(leaf) for leaf in jax.tree.leaves(ours))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(theirs))


@pytest.mark.parametrize("spacing", NESTED)
def test_the_rungs_of_the_student_are_some_of_its_teachers(spacing):
    settings = dataclasses.replace(SETTINGS, spacing=spacing, num_steps=4)
    task = distilled(dataclasses.replace(STUDENT, settings=settings), 12)
    own = np.asarray(SPACINGS[spacing](STUDENT.schedule, 4))
    u = jnp.asarray([1.0, 0.9, 0.6, 0.4, 0.1, 0.0])
    ladders = np.asarray(task.ladders(u))
    assert ladders.shape == (6, 4)
    np.testing.assert_allclose(ladders[:, 0], own[[0, 0, 1, 2, 3, 3]], rtol=1e-5)
    np.testing.assert_allclose(ladders[:, -1], own[[1, 1, 2, 3, 4, 4]], rtol=1e-5)


def test_eight_devices_have_the_losses_of_one():
    task = distilled()
    batch = drawn(task)
    params = jax.tree.map(lambda x: x + 0.02, task.frozen["teacher"])
    mesh = mesh_lib.make_mesh(data=8)
    spread = jax.device_put(batch, mesh_lib.batch_sharding(mesh))
    ours, theirs = (jax.jit(task.loss)(params, one).per_example for one in (spread, batch))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_preview_takes_the_steps_of_the_student():
    task = distilled()
    params, batch = task.frozen["teacher"], jax.tree.map(jnp.asarray, batch_of(16, 2))
    keys = rng.stream(jax.random.split(KEY, 2), "preview")
    made = jax.jit(task.preview)(params, batch, keys)["made"]
    columns = STUDENT.prompted(batch)
    again = sampling.sample(params, columns, keys, task=STUDENT, settings=SETTINGS)
    np.testing.assert_allclose(made, again, atol=1e-5)
