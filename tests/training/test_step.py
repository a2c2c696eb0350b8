import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax.core import rng
from diffjax.devices import mesh as mesh_lib
from diffjax.diffusion.training.loss import diffusion_loss
from diffjax.diffusion.training.times import stratified
from diffjax.images import pixels
from diffjax.tasks.denoising import Condition, bind, init_params
from diffjax.tasks.text import mask_from_length
from diffjax.training import averages, state
from diffjax.training import step as step_lib
from tests.tasks.test_denoising import BASE, KEY, SR

TX = optax.adam(1e-3)
AVERAGES = averages.parse(["decay_0.99"])
OPTIONS = {"weighting": "v", "text_drop": 0.1}


def batch_of(size_px, b=8):
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 256, (b, size_px, size_px, 3), np.uint8),
        "text": random.standard_normal((b, 6, 4)).astype(jnp.bfloat16),
        "text_length": random.integers(1, 7, b).astype(np.int32),
    }


def step_of(the_stage, **options):
    return functools.partial(
        step_lib.train_step, stage=the_stage, tx=TX, root_key=KEY, averages=AVERAGES,
        **{**OPTIONS, **options},
    )  # fmt: skip


def create(the_stage):
    return functools.partial(state.create, functools.partial(init_params, the_stage), TX, AVERAGES)


def placed(the_stage, mesh, **options):
    """The jitted step on a mesh, the state's shapes, and where state and batch lie."""
    shapes = jax.eval_shape(create(the_stage), KEY)
    place = mesh_lib.state_sharding(mesh, shapes)
    batch_place = mesh_lib.batch_sharding(mesh)
    step = jax.jit(
        step_of(the_stage, spread=mesh_lib.spread(mesh, place.params), **options),
        in_shardings=(place, batch_place),
        out_shardings=(place, None),
        donate_argnums=0,
    )
    return step, shapes, place, batch_place


def run(the_stage, mesh, num_steps=2, **options):
    """The state after some steps on a mesh, and the losses, gathered on the host."""
    step, _, place, batch_place = placed(the_stage, mesh, **options)
    current = jax.device_put(started(the_stage), place)
    batch = mesh_lib.to_devices(batch_of(the_stage.size_px, 16), batch_place)
    losses = []
    for _ in range(num_steps):
        current, metrics = step(current, batch)
        losses.append(float(metrics["loss"]))
    return jax.device_get(current), losses


@functools.cache
def started(the_stage):
    return jax.device_get(jax.jit(create(the_stage))(KEY))


@functools.cache
def on_one_device(the_stage):
    return run(the_stage, mesh_lib.make_mesh(devices=jax.devices()[:1]))


SCANNED = dataclasses.replace(
    BASE,
    name="scanned",
    model=BASE.model.clone(num_blocks=3, scan=True, remat="products"),
)


# Half the blocks, and of each kind one.
FLAT = dataclasses.replace(
    BASE, name="flat", model=BASE.model.clone(mults=(1,), attention_levels=(0,))
)


SLOW = pytest.mark.slow
MESHES = [
    (FLAT, (2, 2, 2), 1),
    pytest.param(BASE, (2, 2, 2), 1, marks=SLOW),
    pytest.param(SR, (4, 2, 1), 2, marks=SLOW),
    pytest.param(BASE, (8, 1, 1), 1, marks=SLOW),
    pytest.param(BASE, (1, 8, 1), 2, marks=SLOW),
    pytest.param(BASE, (2, 4, 1), 1, marks=SLOW),
    pytest.param(BASE, (1, 1, 8), 2, marks=SLOW),
    pytest.param(SR, (2, 2, 2), 2, marks=SLOW),
    pytest.param(SCANNED, (2, 4, 1), 2, marks=SLOW),
]


@pytest.mark.parametrize(("the_stage", "sizes", "accumulate"), MESHES)
def test_eight_devices_do_what_one_does(the_stage, sizes, accumulate):
    """Losses and, as Adam keeps them, gradients and their squares: on every mesh, in parts too."""
    expected, losses = on_one_device(the_stage)
    got, got_losses = run(the_stage, mesh_lib.make_mesh(*sizes), accumulate=accumulate)
    np.testing.assert_allclose(got_losses, losses, atol=1e-5)
    for mine, theirs in zip(
        jax.tree.leaves(got.opt_state), jax.tree.leaves(expected.opt_state), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert int(got.step) == 2


def test_parameters_really_lie_in_shards():
    mesh = mesh_lib.make_mesh(fsdp=8)
    make = create(BASE)
    place = mesh_lib.state_sharding(mesh, jax.eval_shape(make, KEY))
    kernel = jax.jit(make, out_shardings=place)(KEY).params["stem"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (*kernel.shape[:-1], kernel.shape[-1] // 8)


@pytest.mark.slow
def test_micro_batches_do_not_change_a_step():
    """All chance is drawn for the whole batch: in 4 parts or at once, the same up to rounding."""
    whole, losses = on_one_device(BASE)
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:1])
    parts, part_losses = run(BASE, mesh, accumulate=4)
    np.testing.assert_allclose(part_losses, losses, atol=1e-5)
    for mine, theirs in zip(
        jax.tree.leaves(parts.opt_state), jax.tree.leaves(whole.opt_state), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_the_loss_of_a_step_is_the_diffusion_loss():
    """Drawn beforehand or by `diffusion_loss` itself from the same key: one and the same loss."""
    batch = jax.tree.map(jnp.asarray, batch_of(16))
    params = jax.tree.map(lambda p: p + 0.05, jax.jit(lambda key: init_params(BASE, key))(KEY))

    @jax.jit
    def both(params, batch):
        mask = mask_from_length(batch["text_length"], 6)
        condition = Condition(batch["text"].astype(jnp.float32), mask)
        theirs, _ = diffusion_loss(
            bind(BASE, params, condition),
            pixels.from_uint8(batch["image"]),
            key=rng.stream(KEY, "diffusion"),
            schedule=BASE.schedule,
            predict=BASE.predict,
            weighting="min_snr",
            times=stratified,
        )
        mine, _ = step_lib.stage_loss(
            params, batch, stage=BASE, key=KEY, weighting="min_snr", text_drop=0.0, times=stratified
        )
        return mine, theirs

    mine, theirs = both(params, batch)
    assert float(mine) == pytest.approx(float(theirs), rel=1e-6)


def test_readings_keep_the_last_rows_with_columns_by_name():
    metrics = {"b": jnp.float32(2), "a": jnp.float32(1)}
    readings = step_lib.no_readings(3, metrics)
    for i in range(4):
        readings = step_lib.record(readings, {"b": jnp.float32(i), "a": jnp.float32(10 * i)})
    np.testing.assert_array_equal(readings.rows, [[30, 3], [10, 1], [20, 2]])
    assert int(readings.written) == 1


@pytest.fixture(scope="module")
def one_step():
    """A first state, and the step, jitted."""
    return jax.jit(create(BASE))(KEY), jax.jit(step_of(BASE))


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


def test_the_loss_of_a_net_that_says_zero_is_the_targets_variance():
    """v = alpha eps - sigma x_0, so E|v|^2 = E alpha^2 + E sigma^2 E|x_0|^2."""
    params = jax.jit(lambda key: init_params(BASE, key))(KEY)
    batch = jax.tree.map(jnp.asarray, {**batch_of(16, 512), "image": np.full(
        (512, 16, 16, 3), 255, np.uint8)})  # fmt: skip
    loss, metrics = jax.jit(functools.partial(step_lib.stage_loss, stage=BASE, key=KEY, **OPTIONS))(
        params, batch
    )
    assert float(loss) == pytest.approx(1.0, abs=0.02)  # |x_0| = 1 everywhere
    assert float(metrics["loss_noisy"]) == pytest.approx(1.0, abs=0.05)


def test_text_is_dropped_in_the_share_asked_for():
    """With every caption dropped the loss no longer knows the text; with none it does."""
    params = jax.jit(lambda key: init_params(BASE, key))(KEY)
    params = jax.tree.map(lambda p: p + 0.05, params)
    batch = jax.tree.map(jnp.asarray, batch_of(16))
    other = {**batch, "text": batch["text"][::-1], "text_length": batch["text_length"][::-1]}
    loss = jax.jit(
        lambda batch, drop: step_lib.stage_loss(
            params, batch, stage=BASE, key=KEY, weighting="v", text_drop=drop
        )[0],
        static_argnums=1,
    )
    assert float(loss(batch, 1.0)) == float(loss(other, 1.0))
    assert float(loss(batch, 0.0)) != float(loss(other, 0.0))


def test_keys_are_never_used_twice():
    """JAX's own checker walks the step's program."""
    from jax.experimental import key_reuse

    batch = jax.tree.map(jnp.asarray, batch_of(32))
    params = jax.eval_shape(lambda key: init_params(SR, key), KEY)

    def loss(key, params):
        return step_lib.stage_loss(params, batch, stage=SR, key=key, **OPTIONS)[0]

    with jax.debug_key_reuse(True):
        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), params)
        jax.jit(loss)(jax.random.key(1), zeros)
    assert key_reuse is not None


def test_the_trained_condition_is_noised_as_far_as_max_aug_level():
    """At level 0 the loss depends on the small picture's noise not at all."""
    params = jax.tree.map(lambda p: p + 0.05, jax.jit(lambda key: init_params(SR, key))(KEY))
    batch = jax.tree.map(jnp.asarray, batch_of(32))
    loss = jax.jit(
        lambda level: step_lib.stage_loss(
            params, batch, stage=SR, key=KEY, max_aug_level=level, **OPTIONS
        )[0],
        static_argnums=0,
    )
    assert float(loss(0.0)) != float(loss(1.0))


def test_the_metrics_of_the_two_halves_average_to_the_whole():
    per_example = jnp.array([1.0, 2.0, 3.0, 6.0])
    halves = step_lib.by_noise_level(per_example, jnp.array([-1.0, 5.0, -2.0, 3.0]))
    assert float(halves["loss_noisy"]) == 2.0
    assert float(halves["loss_clean"]) == 4.0
    assert np.isnan(float(step_lib.by_noise_level(per_example, jnp.ones(4))["loss_noisy"]))
