"""Training of low-rank changes: what is trained, what stays, and how rows of the class count."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng, trees
from diffjax.devices import mesh as mesh_lib
from diffjax.diffusion.predict import to_x_0
from diffjax.diffusion.process import diffuse
from diffjax.diffusion.training.times import Importance
from diffjax.tasks import lora
from diffjax.tasks.lora import Adapted
from diffjax.tasks.task import Remembering
from tests.tasks.stages import KEY, MIXED, batch_of, moved

FLAT = MIXED


def kernels(task):
    shapes = trees.named_leaves(jax.eval_shape(task.init, KEY))
    return tuple(name for name in shapes if name in ("attention/kernel", "words/kernel"))


def adapted(task=FLAT, **fields):
    frozen = {"base": moved(task), "own": {}}
    return Adapted(task, 2, 4.0, kernels(task), frozen=frozen, **fields)


def batch(rows=8, **columns):
    return {**jax.tree.map(jnp.asarray, batch_of(16, rows)), **columns}


def shaken(task):
    """Its parameters, no longer the first ones."""
    params = jax.jit(task.init)(KEY)
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(KEY, x.shape), params)


def test_before_training_the_loss_is_the_bases():
    task = adapted()
    drawn = task.draw(KEY, batch(), jnp.int32(3))
    both = jax.jit(lambda: (task.loss(task.init(KEY), drawn), FLAT.loss(moved(FLAT), drawn)))
    ours, theirs = both()
    np.testing.assert_allclose(ours.per_example, theirs.per_example, rtol=1e-5)


def test_the_loss_of_changes_is_that_of_the_merged_parameters_and_gradients_are_of_them_alone():
    task, drawn = adapted(), FLAT.draw(KEY, batch(), jnp.int32(3))
    params = shaken(task)

    def mean(params):
        return jnp.mean(task.loss(params, drawn).per_example)

    ours, gradient = jax.jit(jax.value_and_grad(mean))(params)
    flat = trees.named_leaves(params)
    whole = dict(trees.named_leaves(moved(FLAT)))
    for name in task.targets:  # 4 / 2 A B, by NumPy
        a, b = (np.asarray(flat[f"{name}/{part}"], np.float64) for part in "ab")
        whole[name] = np.asarray(whole[name] + 2.0 * (a @ b), np.float32)
    merged = trees.map_named(lambda name, _: whole[name], moved(FLAT))
    theirs = jnp.mean(jax.jit(FLAT.loss)(merged, drawn).per_example)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    assert all(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(gradient))
    assert set(flat) == {f"{name}/{part}" for name in task.targets for part in "ab"}


def test_rows_of_the_class_count_by_their_weight():
    prior = jnp.arange(8) >= 5
    plain, weighed = adapted(), adapted(prior_weight=0.25)
    drawn = weighed.draw(KEY, batch(prior=prior), jnp.int32(3))
    params = shaken(plain)
    ours = jax.jit(weighed.loss)(params, drawn).per_example
    theirs = jax.jit(plain.loss)(params, drawn).per_example
    np.testing.assert_allclose(ours, np.where(prior, 0.25, 1.0) * theirs, rtol=1e-6)
    assert "prior" in weighed.columns()
    assert "prior" not in plain.columns()


@pytest.mark.parametrize("predict", ["eps", "v", "x_0"])
def test_rows_that_are_kept_lead_to_what_the_base_says_of_them(predict):
    """w |x_0_hat - that of the base|^2, from the two networks alone."""
    stage = dataclasses.replace(FLAT, predict=predict, weighting="x_0")
    plain, keeping = (adapted(stage, prior_weight=0.5, keeps=keeps) for keeps in (False, True))
    prior = jnp.arange(8) >= 5
    drawn = keeping.draw(KEY, batch(prior=prior), jnp.int32(3))
    params = shaken(keeping)
    ours, usual, first = (
        np.asarray(jax.jit(task.loss)(given, drawn).per_example)
        for task, given in ((keeping, params), (plain, params), (keeping, keeping.init(KEY)))
    )
    np.testing.assert_allclose(ours[:5], usual[:5], rtol=1e-5)
    assert np.abs(first[5:]).max() < 1e-9 < np.abs(first[:5]).min()  # B is zero: it is the base

    x_0, told = stage.seen(drawn)
    logsnr_t = stage.schedule(drawn["u"])
    x_t = diffuse(x_0, drawn["eps"], logsnr_t)
    one, other = (
        to_x_0(stage.bind(given, told)(x_t, logsnr_t), x_t, logsnr_t, predict)
        for given in (keeping.merged(params), moved(stage))
    )
    wanted = 0.5 * np.mean(np.square(one - other), axis=(1, 2, 3))
    np.testing.assert_allclose(ours[5:], wanted[5:], rtol=1e-5)


def test_what_a_task_remembers_of_its_losses_is_without_that_weight():
    task = dataclasses.replace(FLAT, times=Importance(4))
    ones = [adapted(task, prior_weight=w) for w in (1.0, 0.25)]
    assert isinstance(ones[0], Remembering)
    memory, columns = ones[0].first_memory(), batch(prior=jnp.arange(8) >= 5)
    drawn = ones[0].draw(KEY, columns, jnp.int32(3), memory)
    params = shaken(ones[0])

    def after(task):
        return task.remember(memory, drawn, task.loss(params, drawn))

    both = [jax.jit(after)(one) for one in ones]
    for ours, theirs in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_frozen_weights_are_arguments_of_a_program_and_not_in_its_structure():
    """So tasks of other bases share a program only if they say that they are of one base."""
    task = adapted(checkpoint="a")
    leaves, structure = jax.tree.flatten(task)
    assert len(leaves) == len(jax.tree.leaves(moved(FLAT)))
    other = dataclasses.replace(task, frozen=jax.tree.map(lambda x: x + 1, task.frozen))
    assert jax.tree.structure(other) == structure
    assert jax.tree.structure(dataclasses.replace(task, checkpoint="b")) != structure


def test_a_preview_is_the_merged_stages():
    task = adapted()
    params, keys = shaken(task), rng.per_example(jnp.arange(2))
    columns = batch(2)
    ours = jax.jit(task.preview)(params, columns, keys)["made"]
    theirs = jax.jit(FLAT.preview)(task.merged(params), columns, keys)["made"]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_rule_names_every_new_parameter():
    task = adapted()
    mesh = mesh_lib.make_mesh(fsdp=4, tensor=2)
    places = mesh_lib.state_sharding(mesh, jax.eval_shape(task.init, KEY), task.sharding)
    assert all(one.is_fully_replicated for one in jax.tree.leaves(places))


def test_the_names_of_the_column_agree():
    from diffjax.data.sources import prior

    assert lora.PRIOR == prior.PRIOR
