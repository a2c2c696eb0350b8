import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax.devices import mesh as mesh_lib
from diffjax.training import state
from diffjax.training import step as step_lib
from diffjax.training.gradients import gradients_of
from tests.tasks.stages import BASE, FLAT, KEY, MIXED, SR, batch_of
from tests.training.steps import TX, create, placed, step_of


def run(task, mesh, num_steps=2, **options):
    """The state after some steps on a mesh, and the losses, gathered on the host."""
    step, _, place, batch_place = placed(task, mesh, **options)
    current = jax.device_put(started(task), place)
    batch = mesh_lib.to_devices(batch_of(task.size_px, 16), batch_place)
    losses = []
    for _ in range(num_steps):
        current, metrics = step(current, batch)
        losses.append(float(metrics["loss"]))
    return jax.device_get(current), losses


@functools.cache
def started(task):
    return jax.device_get(jax.jit(create(task))(KEY))


@functools.cache
def on_one_device(task):
    return run(task, mesh_lib.make_mesh(devices=jax.devices()[:1]))


SCANNED = dataclasses.replace(
    BASE,
    name="scanned",
    model=BASE.model.clone(num_blocks=3, scan=True, remat="products"),
)


SLOW = pytest.mark.slow
MESHES = [
    (MIXED, (8, 1, 1), 1),
    pytest.param(FLAT, (2, 2, 2), 1, marks=SLOW),
    pytest.param(BASE, (2, 2, 2), 1, marks=SLOW),
    pytest.param(SR, (4, 2, 1), 2, marks=SLOW),
    pytest.param(BASE, (8, 1, 1), 1, marks=SLOW),
    pytest.param(BASE, (1, 8, 1), 2, marks=SLOW),
    pytest.param(BASE, (2, 4, 1), 1, marks=SLOW),
    pytest.param(BASE, (1, 1, 8), 2, marks=SLOW),
    pytest.param(SR, (2, 2, 2), 2, marks=SLOW),
    pytest.param(SCANNED, (2, 4, 1), 2, marks=SLOW),
]


@pytest.mark.parametrize(("task", "sizes", "parts"), MESHES)
def test_eight_devices_do_what_one_does(task, sizes, parts):
    """Losses and, as Adam keeps them, gradients and their squares: on every mesh, in parts too."""
    expected, losses = on_one_device(task)
    got, got_losses = run(task, mesh_lib.make_mesh(*sizes), parts=parts)
    np.testing.assert_allclose(got_losses, losses, atol=1e-5)
    for mine, theirs in zip(
        jax.tree.leaves(got.opt_state), jax.tree.leaves(expected.opt_state), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert int(got.step) == 2


def test_parameters_really_lie_in_shards():
    mesh = mesh_lib.make_mesh(fsdp=8)
    make = create(FLAT)
    place = mesh_lib.state_sharding(mesh, jax.eval_shape(make, KEY), FLAT.sharding)
    kernel = jax.jit(make, out_shardings=place)(KEY).params["stem"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (*kernel.shape[:-1], kernel.shape[-1] // 8)


@pytest.mark.slow
def test_micro_batches_do_not_change_a_step():
    """All chance is drawn for the whole batch: in 4 parts or at once, the same up to rounding."""
    whole, losses = on_one_device(BASE)
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
    parts, part_losses = run(BASE, mesh, parts=4)
    np.testing.assert_allclose(part_losses, losses, atol=1e-5)
    for mine, theirs in zip(
        jax.tree.leaves(parts.opt_state), jax.tree.leaves(whole.opt_state), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_a_weighted_row_counts_by_its_weight_in_the_gradient():
    """The gradient is that of the mean of `per_example`, weights of times included."""
    batch = MIXED.draw(KEY, jax.tree.map(jnp.asarray, batch_of(16)), jnp.int32(0))
    params = started(MIXED).params
    one = jnp.zeros(8).at[3].set(8.0)
    alone = {name: column[3:4] for name, column in batch.items()} | {"weight": jnp.ones(1)}
    compiled = jax.jit(functools.partial(gradients_of, MIXED), static_argnames="total")
    mine, _ = compiled(params, {**batch, "weight": one}, total=8)
    theirs, _ = compiled(params, alone, total=1)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_mean_over_rows_leaves_out_those_that_have_none():
    rows = {"a": jnp.array([1.0, jnp.nan, 3.0]), "b": jnp.full(3, jnp.nan)}
    means = step_lib.means(rows)
    assert float(means["a"]) == 2.0
    assert np.isnan(means["b"])


@pytest.fixture(scope="module")
def one_step():
    """A first state, and the step, jitted."""
    return jax.jit(create(MIXED))(KEY), jax.jit(step_of(MIXED))


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_step_on_a_bad_batch_counts_and_moves_nothing_else(one_step, value):
    """The averages see the same parameters once more; so the next step is what it would be."""
    start, step = one_step
    good = jax.tree.map(jnp.asarray, batch_of(16))
    bad = {**good, "text": good["text"].at[:, 0].set(value)}
    after, metrics = step(start, bad)
    assert (float(metrics["skipped"]), int(after.step)) == (1.0, 1)
    assert float(metrics["nonfinite"]) > 0
    for mine, theirs in zip(
        jax.tree.leaves(after), jax.tree.leaves(start.replace(step=jnp.int32(1))), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    later, metrics = step(after, good)
    assert float(metrics["skipped"]) == 0.0
    assert any(
        np.any(mine != theirs)
        for mine, theirs in zip(
            jax.tree.leaves(later.params), jax.tree.leaves(start.params), strict=True
        )
    )
    assert bool(step_lib.all_finite(later))


def test_gradients_whose_squares_overflow_are_not_used_either():
    """Adam would keep infinity as their mean square, and never move those parameters again."""
    params = {"w": jnp.ones(4)}
    start = state.create(lambda key: params, TX, (), KEY)
    gradients = {"w": jnp.full(4, 1e30)}
    assert np.isinf(optax.tree.norm(gradients))
    assert bool(step_lib.all_finite(gradients))
    assert not bool(step_lib.all_finite(state.apply_gradients(start, gradients, TX, {})))
    kept = state.apply_gradients(start, gradients, TX, {}, good=jnp.bool_(False))
    assert int(kept.step) == 1
    for mine, theirs in zip(
        jax.tree.leaves((kept.params, kept.opt_state)),
        jax.tree.leaves((start.params, start.opt_state)),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_found(value):
    tree = {"step": jnp.int32(3), "a": jnp.zeros((3, 4)), "b": [jnp.zeros(5, jnp.bfloat16)]}
    assert bool(step_lib.all_finite(tree))
    assert not bool(step_lib.all_finite({**tree, "b": [tree["b"][0].at[4].set(value)]}))


def test_a_step_repeats_itself_and_the_next_draws_anew(one_step):
    start, step = one_step
    batch = jax.tree.map(jnp.asarray, batch_of(16))
    again = [float(step(start, batch)[1]["loss"]) for _ in range(2)]
    later = float(step(start.replace(step=jnp.int32(1)), batch)[1]["loss"])
    assert again[0] == again[1]
    assert later != again[0]


@pytest.mark.parametrize(
    ("loss", "gradient", "skipped", "share"),
    [(1.0, 2.0, 0, 0), (np.nan, 2.0, 1, 0), (np.inf, 2.0, 1, 0), (1.0, np.nan, 1, 0.5),
     (1.0, 1e30, 1, 0)],
)  # fmt: skip
def test_a_step_is_skipped_if_its_loss_or_the_norm_of_its_gradient_is_not_finite(
    loss, gradient, skipped, share
):
    gradients = {"a": jnp.full(3, gradient), "b": jnp.zeros(2)}
    health = step_lib.health_of(gradients, jnp.float32(loss))
    assert float(health["skipped"]) == skipped
    assert float(health["nonfinite"]) == share
