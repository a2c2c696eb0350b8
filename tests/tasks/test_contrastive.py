"""The contrastive losses: against plain NumPy, on meshes, in chunks; and what a step holds."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.devices import mesh as mesh_lib
from diffjax.devices.spread import spread
from diffjax.images import pixels
from diffjax.models.clip.clip import CLIP, Pair
from diffjax.models.clip.sizes import CLIPConfig, tower
from diffjax.tasks import contrastive
from diffjax.tasks.contrastive import Contrastive
from diffjax.training.gradients import gradients_of
from tests.tasks.stages import KEY
from tests.training.steps import create, placed, step_of

CONFIG = CLIPConfig(tower(16, 1, 2), tower(16, 1, 2), 8, 4, 8, vocabulary=24, length=8)
TASK = Contrastive("pairs", CLIP(CONFIG))
SIGMOID = Contrastive(
    "pairs", CLIP(CONFIG, first_log_scale=math.log(10), first_bias=-10.0), kind="sigmoid"
)
ROWS = 16
MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 1, 2), (4, 2, 1)]


def batch_of(rows=ROWS, seed=0):
    random = np.random.default_rng(seed)
    tokens = random.integers(1, 22, (rows, 8)).astype(np.int32)
    tokens[:, 6], tokens[:, 7] = 23, 0
    image = random.integers(0, 256, (rows, 8, 8, 3), np.uint8)
    return {"image": jnp.asarray(image), "tokens": jnp.asarray(tokens)}


@functools.cache
def params_of(task):
    return jax.jit(task.init)(KEY)


def pair_of(rows=5, width=4, seed=0, scale=3.0, bias=-1.0):
    random = np.random.default_rng(seed)
    image, text = random.standard_normal((2, rows, width))
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    return unit(image), unit(text), math.log(scale), bias


def as_pair(image, text, log_scale, bias):
    return Pair(*(jnp.asarray(x, jnp.float32) for x in (image, text, log_scale, bias)))


def log_softmax(x):
    return x - np.log(np.sum(np.exp(x), axis=1, keepdims=True))


@functools.partial(jax.jit, static_argnums=(0, 2))
def losses(of_rows, pair, chunk):
    return of_rows(pair, contrastive.ALONE, chunk)


@pytest.mark.parametrize("chunk", [2, 5])
def test_the_softmax_loss_is_the_mean_of_both_cross_entropies(chunk):
    image, text, log_scale, _ = given = pair_of(bias=0.0)
    logits = np.exp(log_scale) * image @ text.T
    want = -0.5 * (np.diag(log_softmax(logits)) + np.diag(log_softmax(logits.T)))
    loss, by_image, by_text = losses(contrastive.symmetric, as_pair(*given), chunk)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    np.testing.assert_array_equal(by_image, logits.argmax(1) == np.arange(5))
    np.testing.assert_array_equal(by_text, logits.argmax(0) == np.arange(5))


def test_the_sigmoid_loss_asks_of_each_pair_whether_it_belongs_together():
    image, text, log_scale, bias = given = pair_of()
    logits = np.exp(log_scale) * image @ text.T + bias
    sign = 2 * np.eye(5) - 1
    want = np.sum(np.log1p(np.exp(-sign * logits)), axis=1)
    loss, _, none = losses(contrastive.pairwise, as_pair(*given), 2)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    assert np.isnan(none).all()


@functools.cache
def alone(task):
    """(gradients, losses) of one device."""
    work = jax.jit(functools.partial(gradients_of, task, total=ROWS))
    return jax.device_get(work(params_of(task), batch_of()))


def on_mesh(task, sizes):
    mesh = mesh_lib.make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    params = params_of(task)
    place = mesh_lib.state_sharding(mesh, params, task.sharding)
    work = functools.partial(gradients_of, task, total=ROWS)
    rows = mesh_lib.batch_sharding(mesh)
    run = jax.jit(spread(mesh, place, task.sharding)(work), in_shardings=(place, rows))
    return jax.device_get(run(params, batch_of()))


def equal_to_one_device(task, sizes):
    gradients, losses = on_mesh(task, sizes)
    wanted, their_losses = alone(task)
    np.testing.assert_allclose(losses.per_example, their_losses.per_example, rtol=1e-5)
    largest = max(np.abs(g).max() for g in jax.tree.leaves(wanted))
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * largest)
    for name, rows in losses.metrics.items():
        np.testing.assert_allclose(rows, their_losses.metrics[name], rtol=1e-5)


def test_losses_and_gradients_on_eight_devices_are_those_of_one():
    """In chunks of one row, so that devices, chunks and the whole batch differ in size."""
    equal_to_one_device(dataclasses.replace(TASK, chunk=1), (4, 2, 1))


@pytest.mark.slow
@pytest.mark.parametrize("task", [TASK, SIGMOID], ids=["softmax", "sigmoid"])
@pytest.mark.parametrize("sizes", MESHES)
def test_losses_and_gradients_on_every_mesh_are_those_of_one_device(task, sizes):
    equal_to_one_device(task, sizes)


def largest_array(task, rows):
    """The most numbers of an array in the program of the loss and its gradient."""
    params = jax.eval_shape(task.init, KEY)
    shapes = {
        name: jax.ShapeDtypeStruct((rows, *one.shape), one.dtype)
        for name, one in task.columns().items()
    }
    pair = jax.eval_shape(task.pair, params, shapes)

    def total(pair):
        return jnp.sum(contrastive.symmetric(pair, contrastive.ALONE, task.chunk)[0])

    program = jax.make_jaxpr(jax.grad(total))(pair)
    return max(
        (math.prod(v.aval.shape) for e in equations(program.jaxpr) for v in e.outvars), default=0
    )


def equations(jaxpr):
    """All equations, also those of programs inside."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inside = getattr(inner, "jaxpr", inner)
                if hasattr(inside, "eqns"):
                    yield from equations(inside)


def test_the_memory_of_the_logits_grows_linearly_with_the_batch():
    """Chunks of 32 rows against the whole batch; in one piece it is the batch squared."""
    in_chunks = dataclasses.replace(TASK, chunk=32)
    sizes = [largest_array(in_chunks, rows) for rows in (1024, 2048, 4096)]
    assert sizes == [32 * rows for rows in (1024, 2048, 4096)]
    whole = dataclasses.replace(TASK, chunk=4096)
    assert largest_array(whole, 4096) == 4096**2


@functools.cache
def one_step(task):
    return jax.jit(step_of(task))


def test_the_scale_stays_in_its_limits_after_a_step():
    """A step that would lead above 100 or below 1 ends there, and so does what is averaged."""
    state = jax.jit(create(TASK))(KEY)
    for start, end in [(9.0, math.log(100)), (-5.0, 0.0)]:
        moved = state.replace(params={**state.params, "log_scale": jnp.float32(start)})
        after, metrics = one_step(TASK)(moved, batch_of())
        assert float(after.params["log_scale"]) == pytest.approx(end)
        assert float(metrics["scale"]) == pytest.approx(math.exp(start), rel=1e-5)
    inside = state.replace(params={**state.params, "log_scale": jnp.float32(2.0)})
    after, _ = one_step(TASK)(inside, batch_of())
    assert abs(float(after.params["log_scale"]) - 2.0) == pytest.approx(1e-3, rel=0.1)  # Adam's


def test_a_few_steps_learn_which_text_belongs_to_which_picture():
    state, batch = jax.jit(create(TASK))(KEY), batch_of()
    for _ in range(60):
        state, metrics = one_step(TASK)(state, batch)
    assert float(metrics["loss"]) < 0.5 * TASK.loss_by_chance(ROWS)
    assert float(metrics["text_found"]) > 0.7


def test_the_loss_by_chance_is_that_of_the_best_constant_answer():
    rows = 40
    same = np.tile(np.eye(4)[:1], (rows, 1))
    loss, *_ = losses(contrastive.symmetric, as_pair(same, same, 0.0, 0.0), 512)
    assert float(loss.mean()) == pytest.approx(TASK.loss_by_chance(rows), rel=1e-5)
    best = -math.log(rows - 1)  # the logit of 1 / rows
    answers = as_pair(same, same, 0.0, best - 1.0)
    loss, *_ = losses(contrastive.pairwise, answers, 512)
    assert float(loss.mean()) == pytest.approx(SIGMOID.loss_by_chance(rows), rel=1e-4)


def test_a_picture_is_moved_by_whole_pixels_and_its_edge_repeated():
    image = jnp.arange(2 * 4 * 4 * 1.0).reshape(2, 4, 4, 1)
    move = jax.jit(contrastive.shifted, static_argnums=2)
    moved = move(image, jnp.array([[1, -2], [0, 0]]), 2)
    np.testing.assert_array_equal(moved[0, 1:, :2], image[0, :3, 2:])
    np.testing.assert_array_equal(moved[0, 0], moved[0, 1])
    np.testing.assert_array_equal(moved[1], image[1])
    task = dataclasses.replace(TASK, shift_px=2)
    shift = task.draw(KEY, batch_of(rows=200), jnp.int32(0))["shift"]
    assert set(np.unique(shift)) == set(range(-2, 3))
    assert TASK.draw(KEY, batch_of(), jnp.int32(0)).keys() == batch_of().keys()


NOISED = Contrastive("pairs", CLIP(dataclasses.replace(CONFIG, noised=True)))


@pytest.mark.slow
def test_a_task_of_noised_pictures_compares_pictures_at_levels_of_its_own():
    """x_t = alpha x_0 + sigma eps with alpha^2 = sigmoid(logsnr), and the network told logsnr."""
    batch, params = batch_of(), params_of(NOISED)
    drawn = NOISED.draw(KEY, batch, jnp.int32(0))
    assert drawn.keys() - batch.keys() == {"u", "eps"}
    assert drawn["eps"].std() == pytest.approx(1.0, abs=0.06)
    assert 0 <= drawn["u"].min() < 0.3 < 0.7 < drawn["u"].max() <= 1
    logsnr = np.asarray(contrastive.COSINE(drawn["u"]), np.float64)
    alpha, sigma = (np.sqrt(1 / (1 + np.exp(s * logsnr)))[:, None, None, None] for s in (-1, 1))
    x_t = alpha * np.asarray(pixels.from_uint8(batch["image"])) + sigma * np.asarray(drawn["eps"])
    run = jax.jit(
        lambda image, at: NOISED.model.apply({"params": params}, image, batch["tokens"], at)
    )
    wanted = run(jnp.asarray(x_t, jnp.float32), jnp.asarray(logsnr, jnp.float32))
    got = jax.jit(NOISED.pair)(params, drawn)
    np.testing.assert_allclose(got.image, wanted.image, atol=2e-5)
    plain = jax.jit(NOISED.pair)(params, batch)  # without noise, at the level of clean pictures
    clean = run(pixels.from_uint8(batch["image"]), jnp.full(ROWS, 20.0))
    np.testing.assert_allclose(plain.image, clean.image, atol=1e-6)
    assert np.abs(plain.image - got.image).max() > 1e-3


@pytest.mark.slow
def test_a_task_of_noised_pictures_is_the_same_on_eight_devices():
    equal_to_one_device(NOISED, (2, 2, 2))


def test_a_preview_shows_for_each_text_the_picture_that_fits_best():
    params, batch = params_of(TASK), batch_of(4)
    made = jax.jit(TASK.preview)(params, batch, jax.random.split(KEY, 4))
    best = np.argmax(made["clip_text"] @ made["clip_image"].T, axis=1)
    np.testing.assert_allclose(made["made"], pixels.from_uint8(batch["image"])[best], atol=1e-6)


@pytest.mark.slow
def test_steps_on_a_mesh_are_those_of_one_device():
    mesh = mesh_lib.make_mesh(2, 2, 2)
    step, shapes, place, rows = placed(TASK, mesh)
    state = jax.jit(create(TASK), out_shardings=place)(KEY)
    one = jax.jit(create(TASK))(KEY)
    for seed in range(3):
        state, metrics = step(state, jax.device_put(batch_of(seed=seed), rows))
        one, wanted = one_step(TASK)(one, batch_of(seed=seed))
        assert float(metrics["loss"]) == pytest.approx(float(wanted["loss"]), rel=1e-4)
    assert shapes is not None
