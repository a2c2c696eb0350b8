"""The autoregressive prior: its buckets, and samples of a distribution that is known."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.models.prior_ar import AutoregressivePrior as Network
from diffjax.tasks import autoregressive_prior
from diffjax.tasks.autoregressive_prior import AutoregressivePrior
from diffjax.tasks.buckets import REACH, Buckets, middle
from diffjax.tasks.conditions import Text
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.vectors import TextVector, image_vector
from tests.tasks.stages import KEY, STEP

A = np.array([[0.8, -0.3, 0.1], [0.2, 0.5, -0.4], [-0.1, 0.4, 0.6]], np.float32)
VARIANCE = np.array([0.3, 0.1, 0.2], np.float32)
TEXT = np.array([0.6, -0.8, 0.0], np.float32)
BUCKETS = Buckets(components=3, count=128, dots=8)
# Turned axes, of which each is one of the numbers.
BASIS = {
    "mean": jnp.array([0.1, -0.2, 0.3]),
    "components": jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]),
    "deviation": jnp.array([0.4, 0.5, 0.6]),
    "dot_mean": jnp.float32(0.3),
    "dot_deviation": jnp.float32(0.2),
    "dot_shares": jnp.array([0.0, 0.1, 0.2, 0.3, 0.3, 0.1, 0.0, 0.0]),
}
TINY = Network(width=16, num_blocks=2, num_heads=2, length=4, components=3, buckets=128, dots=8)


class Known:
    """Says the true shares of the buckets of z = A y + noise, component after component."""

    sharding, init = (), None

    @staticmethod
    def apply(variables, *given, method=None, **told):
        if method == "begin":
            text = told["text_vector"]
            return says(text, 0)[:, None], text
        _, index, _, text = given
        return says(text, index + 1)[:, None], text


def says(text, index):
    which = jnp.array([1, 2, 0])[index]
    deviation = BASIS["deviation"][index]
    mean = ((text @ A.T)[:, which] - BASIS["mean"][which]) / deviation
    places = middle(jnp.arange(128), 128)
    variance = jnp.asarray(VARIANCE)[which] / deviation**2
    return -0.5 * (places - mean[:, None]) ** 2 / variance


def task_of(model, weight=1.0):
    return AutoregressivePrior(
        "prior", model, Text(5, 4, drop=0.5), TextVector(3), BUCKETS,
        SampleSettings(guidance_weight=weight), frozen={"basis": BASIS},
    )  # fmt: skip


def columns_of(rows):
    random = np.random.default_rng(0)
    return {
        "text": jnp.asarray(random.standard_normal((rows, 4, 5)), jnp.float32),
        "text_mask": jnp.arange(4) < jnp.arange(1, rows + 1)[:, None],
        "text_vector": jnp.broadcast_to(TEXT, (rows, 3)),
    }


@functools.cache
def moved():
    made = jax.jit(task_of(TINY).init)(KEY)
    random = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + 0.1 * random.standard_normal(p.shape, np.float32), made)


def test_a_vector_lies_within_half_a_bucket_of_the_middle_of_its_buckets():
    random = np.random.default_rng(0)
    z = jnp.asarray(BASIS["mean"] + 0.3 * random.standard_normal((50, 3)), jnp.float32)
    back = BUCKETS.decode(BASIS, BUCKETS.encode(BASIS, z))
    widths = 2 * REACH / 128 * jnp.array([0.6, 0.4, 0.5])
    assert (jnp.abs(back - z) <= widths / 2 + 1e-6).all()
    far = BUCKETS.encode(BASIS, jnp.array([[-9.0, 9.0, 0.3]]))
    np.testing.assert_array_equal(far, [[127, 64, 0]])


def test_products_are_drawn_from_the_larger_half_of_those_of_the_data():
    # the median lies two thirds into the bucket with 0.3 that begins at 0.3
    likely = BUCKETS.likely_dots(BASIS)
    np.testing.assert_allclose(likely, [0, 0, 0, 0.1, 0.3, 0.1, 0, 0], atol=1e-6)
    dots = BUCKETS.of_dot(BASIS, jnp.array([0.3, 0.3 + 0.2 * 3.9, -5.0]))
    np.testing.assert_array_equal(dots, [4, 7, 0])


def test_samples_have_the_mean_and_the_covariance_of_a_known_distribution():
    task, rows = task_of(Known()), 8192
    run = functools.partial(autoregressive_prior.sample, task=task, settings=task.settings)
    codes = jax.jit(run)({}, columns_of(rows), jax.random.split(KEY, rows))
    made = np.asarray(BUCKETS.decode(BASIS, codes), np.float64)
    np.testing.assert_allclose(made.mean(0), A @ TEXT, atol=0.05)
    np.testing.assert_allclose(np.cov(made.T), np.diag(VARIANCE), atol=0.05)
    unit = image_vector({}, columns_of(2), jax.random.split(KEY, 2), task=task,
                        settings=task.settings)  # fmt: skip
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)


def test_of_several_vectors_the_one_nearest_to_the_text_is_kept():
    rows, task = 64, task_of(Known())
    keys = jax.random.split(KEY, rows)

    def made(best_of, keys):
        chooser = dataclasses.replace(task, best_of=best_of)
        run = functools.partial(image_vector, task=chooser, settings=task.settings)
        return np.asarray(jax.jit(run)({}, columns_of(rows), keys))

    each = [made(1, rng.stream(keys, f"candidate_{i}")) for i in range(2)]
    first = (each[0] @ TEXT > each[1] @ TEXT)[:, None]
    assert 0 < first.sum() < rows
    np.testing.assert_allclose(made(2, keys), np.where(first, *each), atol=1e-6)


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_places_that_are_kept_give_the_buckets_of_the_whole_sequence(weight, monkeypatch):
    """With greedy choices: each bucket is the likeliest given those before it."""
    greedy = lambda keys, logits: jnp.argmax(logits, axis=-1).astype(jnp.int32)  # noqa: E731
    monkeypatch.setattr(autoregressive_prior, "chosen", greedy)
    task, columns, rows = task_of(TINY, weight), columns_of(4), 4
    run = functools.partial(autoregressive_prior.sample, task=task, settings=task.settings)
    codes = jax.jit(run)(moved(), columns, jax.random.split(KEY, rows))
    whole = jax.jit(lambda dot, **told: TINY.apply({"params": moved()}, codes, dot, **told))
    logits = whole(jnp.full(rows, 4), **columns)
    if weight != 1:
        absent = {k: v for one in task.conditions for k, v in one.absent(columns, columns).items()}
        nothing = whole(jnp.full(rows, 8), **absent)
        logits = nothing + weight * (logits - nothing)
    np.testing.assert_array_equal(jnp.argmax(logits, axis=-1), codes)


def test_the_loss_is_that_of_the_right_buckets_and_tells_dropped_rows_nothing():
    task, params, rows = task_of(TINY), moved(), 16
    random = np.random.default_rng(2)
    normal = lambda *shape: jnp.asarray(random.standard_normal(shape), jnp.float32)  # noqa: E731
    batch = {
        "image_vector": 0.5 * normal(rows, 3), "text_vector": normal(rows, 3),
        "text": normal(rows, 4, 5), "text_length": jnp.full(rows, 3),
    }  # fmt: skip
    drawn = task.draw(KEY, batch, STEP)
    loss = jax.jit(task.loss)
    losses = loss(params, drawn)
    drawn_keep = np.asarray(drawn["keep_text"])
    assert 0 < drawn_keep.sum() < rows
    other = {**drawn, "text_vector": drawn["text_vector"] + 1, "text": drawn["text"] + 1}
    same = np.asarray(loss(params, other).per_example == losses.per_example)
    np.testing.assert_array_equal(same, ~drawn_keep)
    codes = BUCKETS.encode(BASIS, batch["image_vector"])
    dot = BUCKETS.of_dot(BASIS, jnp.sum(batch["image_vector"] * batch["text_vector"], axis=-1))
    told = {
        "text": batch["text"], "text_mask": jnp.arange(4) < jnp.full((rows, 1), 3),
        "text_vector": batch["text_vector"],
    }  # fmt: skip
    shares = jax.nn.log_softmax(TINY.apply({"params": params}, codes, dot, **told))
    own = -np.take_along_axis(np.asarray(shares), np.asarray(codes)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(losses.per_example[drawn_keep], own.mean(1)[drawn_keep], rtol=1e-5)
    np.testing.assert_allclose(
        losses.metrics["loss_first"][drawn_keep], own[drawn_keep, 0], rtol=1e-5
    )


def test_a_basis_is_a_frozen_weight_and_no_part_of_the_network():
    task = task_of(TINY)
    assert set(jax.tree.leaves(task)[0].shape) <= {3, 8}
    assert "basis" not in jax.eval_shape(task.init, KEY)
    assert dataclasses.replace(task, frozen={}) == task
