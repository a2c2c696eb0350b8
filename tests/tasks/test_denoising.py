import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.diffusion.training.loss import diffusion_loss
from diffjax.diffusion.training.times import stratified
from diffjax.images import pixels
from diffjax.models.efficient_unet import EfficientUNet, is_convolutional
from diffjax.tasks.conditions import Text
from diffjax.tasks.learning import by_noise_level
from diffjax.tasks.task import examples
from tests.tasks.network import Network
from tests.tasks.stages import BASE, FLAT, KEY, MIXED, SR, STEP, TINY, batch_of, loss_of, moved


def with_conditions(task, *conditions):
    """The task with these conditions in the place of those of their kinds."""
    kept = [
        next((new for new in conditions if type(new) is type(old)), old) for old in task.conditions
    ]
    return dataclasses.replace(task, conditions=tuple(kept))


def test_a_task_starts_from_a_picture_or_from_nothing():
    assert (BASE.factor, SR.factor) == (1, 4)
    for one in (BASE, SR):
        params = jax.eval_shape(one.init, KEY)
        assert ("aug" in params["conditioning"]) == (one is SR)


def test_crops_need_a_network_that_looks_at_the_text_alone():
    assert is_convolutional(SR.model)
    assert not is_convolutional(BASE.model)
    assert not is_convolutional(EfficientUNet(**TINY, num_blocks=(1, 1), attention="self"))


def test_the_columns_of_a_crop_are_smaller_than_the_picture():
    whole, crop = SR.columns(), dataclasses.replace(SR, crop_px=16).columns()
    assert (whole["image"].shape, crop["image"].shape) == ((32, 32, 3), (16, 16, 3))
    assert whole["text"].shape == (6, 4)
    assert examples(BASE, 5)["text_length"].shape == (5,)


def test_the_loss_of_a_task_is_the_diffusion_loss():
    """Drawn beforehand or by `diffusion_loss` itself from the same key: one and the same loss."""
    task = dataclasses.replace(
        with_conditions(MIXED, Text(4, 6)), weighting="min_snr", times=stratified
    )
    batch, params = jax.tree.map(jnp.asarray, batch_of(16)), moved(task)

    @jax.jit
    def both(params, batch):
        told = task.text.told({**batch, "keep_text": jnp.ones(8, bool)})
        theirs, _ = diffusion_loss(
            task.bind(params, told),
            pixels.from_uint8(batch["image"]),
            key=rng.stream(KEY, "diffusion"),
            schedule=task.schedule,
            predict=task.predict,
            weighting="min_snr",
            times=stratified,
        )
        return jnp.mean(loss_of(task, params, batch).per_example), theirs

    mine, theirs = both(params, batch)
    assert float(mine) == pytest.approx(float(theirs), rel=1e-6)


def test_the_loss_of_a_net_that_says_zero_is_the_targets_variance():
    """v = alpha eps - sigma x_0, so E|v|^2 = E alpha^2 + E sigma^2 E|x_0|^2."""
    white = np.full((512, 16, 16, 3), 255, np.uint8)
    batch = jax.tree.map(jnp.asarray, {**batch_of(16, 512), "image": white})
    task = dataclasses.replace(FLAT, model=Network(lambda x_t, _, **told: jnp.zeros_like(x_t)))
    losses = jax.jit(lambda batch: loss_of(task, {}, batch))(batch)
    assert float(losses.per_example.mean()) == pytest.approx(1.0, abs=0.02)  # |x_0| = 1 everywhere
    assert float(jnp.nanmean(losses.metrics["loss_noisy"])) == pytest.approx(1.0, abs=0.05)


def test_text_is_dropped_in_the_share_asked_for():
    """With every caption dropped the loss no longer knows the text; with none it does."""
    batch, params = jax.tree.map(jnp.asarray, batch_of(16)), moved(MIXED)
    other = {**batch, "text": batch["text"][::-1], "text_length": batch["text_length"][::-1]}
    for drop, same in ((1.0, True), (0.0, False)):
        task = with_conditions(MIXED, Text(4, 6, drop))
        loss = jax.jit(lambda batch, task=task: loss_of(task, params, batch).per_example.mean())
        assert (float(loss(batch)) == float(loss(other))) is same


def test_keys_are_never_used_twice():
    """JAX's own checker walks the program of the loss."""
    batch = jax.tree.map(jnp.asarray, batch_of(32))
    shapes = jax.eval_shape(SR.init, KEY)
    with jax.debug_key_reuse(True):
        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), shapes)
        jax.jit(lambda key, params: loss_of(SR, params, batch, key))(jax.random.key(1), zeros)


def test_the_metrics_of_the_two_halves_average_to_the_whole():
    per_example = jnp.array([1.0, 2.0, 3.0, 6.0])
    halves = by_noise_level(per_example, jnp.array([-1.0, 5.0, -2.0, 3.0]))
    assert float(jnp.nanmean(halves["loss_noisy"])) == 2.0
    assert float(jnp.nanmean(halves["loss_clean"])) == 4.0
    assert np.isnan(by_noise_level(per_example, jnp.ones(4))["loss_noisy"]).all()


def test_the_weight_of_a_time_counts_in_the_loss():
    """Importance sampling keeps the mean: a row drawn half as often counts twice."""
    batch = jax.tree.map(jnp.asarray, batch_of(16))
    drawn = jax.jit(MIXED.draw)(KEY, batch, STEP)
    params = moved(MIXED)
    loss = jax.jit(lambda batch: MIXED.loss(params, batch).per_example)
    plain, heavy = loss(drawn), loss({**drawn, "weight": 2.0 * drawn["weight"]})
    np.testing.assert_allclose(heavy, 2.0 * plain, rtol=1e-6)


def test_equal_tasks_share_a_program():
    assert dataclasses.replace(BASE) == BASE
    assert hash(BASE) == hash(dataclasses.replace(BASE))
    leaves, structure = jax.tree.flatten(BASE)
    assert leaves == []
    assert structure == jax.tree.structure(dataclasses.replace(BASE))


def test_a_network_with_dropout_is_given_a_key_for_each_row_in_training_alone():
    task = dataclasses.replace(FLAT, model=FLAT.model.clone(dropout=0.1))
    batch = jax.tree.map(jnp.asarray, batch_of(16))
    drawn = task.draw(KEY, batch, STEP)
    assert drawn["dropout_key"].shape == (8,)
    assert len(np.unique(jax.random.key_data(drawn["dropout_key"]), axis=0)) == 8
    assert "dropout_key" not in FLAT.draw(KEY, batch, STEP)
    told = []

    class Heard:
        """Notes what the network is told."""

        dropout, sharding, init = 0.1, (), None

        @staticmethod
        def apply(variables, x_t, logsnr_t, **given):
            told.append(set(given))
            return x_t

    heard = dataclasses.replace(task, model=Heard())
    heard.loss({}, drawn)
    heard.bind({}, task.text.nothing(8))(jnp.zeros((8, 16, 16, 3)), jnp.zeros(8))
    assert ["dropout_key" in names for names in told] == [True, False]
