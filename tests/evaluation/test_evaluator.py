"""The evaluator: rows over devices and calls, keys, means, and one compilation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.devices import mesh as mesh_lib
from diffjax.evaluation import evaluator
from diffjax.evaluation.denoising import Bits, NoiseLevels
from diffjax.evaluation.measure import TrainingLoss
from tests.evaluation import subjects

X = np.random.default_rng(0).standard_normal((11, 4)).astype(np.float32)
MEASURES = (TrainingLoss(), NoiseLevels((-4.0, 0.0, 4.0)), Bits((6.0,), 4))


def parted(x_t, logsnr_t):
    return jnp.tanh(x_t) * jax.nn.sigmoid(logsnr_t)[:, None]


def kept(made, examples):
    """What the task made of each example, and how many there are."""
    return {f"made_{i}": made["made"][:, i] for i in range(4)} | {"of_all": np.float64(len(made))}


def asked(**how):
    task = subjects.numbers_task(parted)
    return subjects.evaluator(task, subjects.examples({"x": X}), MEASURES, [kept], **how)


@pytest.fixture(scope="module")
def alone():
    """The answers of one device, four rows at a time, of which the last call has three."""
    return asked(batch_size=4).answers({})


def test_rows_do_not_depend_on_devices_nor_on_how_many_go_at_a_time(alone):
    spread = asked(devices=8, batch_size=5).answers({})
    assert alone.keys() == spread.keys()
    for name, rows in alone.items():
        np.testing.assert_allclose(spread[name], rows, rtol=1e-4, atol=1e-6, err_msg=name)
        assert rows.shape == ((11,) if name != "of_all" else ())


def test_an_example_has_the_key_of_the_seed_and_its_place(alone):
    """So its numbers are those that it has among fewer examples; another seed's are others."""
    whole = asked(batch_size=4)
    few = dataclasses.replace(whole, examples=subjects.examples({"x": X[:5]})).answers({})
    other = dataclasses.replace(whole, seed=1).answers({})
    for name, rows in alone.items():
        if rows.shape:
            np.testing.assert_allclose(few[name], rows[:5], rtol=1e-4, err_msg=name)
    assert np.abs(other["loss"] - alone["loss"]).min() > 1e-5


def test_the_loss_is_the_tasks_own_with_a_draw_for_each_row(alone):
    task = subjects.numbers_task(parted)

    @jax.jit
    def wanted(x):
        key = jax.random.fold_in(rng.stream(jax.random.key(0), "evaluate"), 5)
        drawn = task.draw(rng.stream(key, "loss"), {"x": x}, jnp.int32(0))
        return task.loss({}, drawn).per_example[0]

    assert alone["loss"][5] == pytest.approx(float(wanted(X[5:6])), rel=1e-5)
    halves = np.nansum([alone["loss_noisy"], alone["loss_clean"]], axis=0)
    np.testing.assert_allclose(halves, alone["loss"], rtol=1e-5)


def test_a_second_evaluation_compiles_nothing(alone):
    ask = asked(batch_size=4)
    program = evaluator.program(MEASURES, True, mesh_lib.replicated(ask.mesh))
    before = program._cache_size()
    assert before > 0
    assert ask({}) == evaluator.means(alone)
    others = dataclasses.replace(ask, examples=subjects.examples({"x": X + 1}))
    assert others({}) != evaluator.means(alone)
    assert program._cache_size() == before


def test_a_mean_is_over_the_rows_that_have_the_number():
    answers = {
        "some": np.array([1.0, np.nan, 4.0]), "none": np.full(3, np.nan),
        "all": np.array([1.0, np.inf]), "one": np.float64(3.0),
    }  # fmt: skip
    assert evaluator.means(answers) == {"some": 2.5, "all": np.inf, "one": 3.0}


@pytest.mark.parametrize(
    ("count", "batch_size", "devices", "rows"), [(11, 4, 8, 8), (11, 64, 8, 16), (3, 64, 1, 3)]
)
def test_as_many_rows_go_to_every_device(count, batch_size, devices, rows):
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:devices])
    assert evaluator.rows_for(count, batch_size, mesh) == rows


def test_no_device_has_more_rows_than_fit_unless_the_batch_counts():
    mesh = mesh_lib.make_mesh(devices=jax.devices()[:2])
    assert evaluator.rows_for(100, 64, mesh) == 16
    assert evaluator.rows_for(100, 64, mesh, whole_batch=True) == 64


def test_a_tensor_group_shares_its_rows():
    assert evaluator.rows_for(3, 64, mesh_lib.make_mesh(tensor=4)) == 4
