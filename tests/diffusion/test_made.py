import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import schedule, table
from diffjax.diffusion.training import weighting

MAKERS = {
    **schedule.SCHEDULES,
    "shifted": lambda: schedule.shifted(schedule.cosine(), 0.5),
    "interpolated": lambda: schedule.interpolated(schedule.flow(), 1.0, 0.5),
    "table": lambda: table.discrete(table.logsnr_table(table.linear_betas(num_steps=5))),
    "min_snr": weighting.min_snr,
    "p2": weighting.p2,
    "sigmoid's weighting": weighting.sigmoid,
}


@pytest.mark.parametrize("name", MAKERS)
def test_two_made_with_equal_arguments_are_equal_and_have_one_hash(name):
    one, other = MAKERS[name](), MAKERS[name]()
    assert one is not other
    assert one == other
    assert hash(one) == hash(other)
    assert sum(one == make() for make in MAKERS.values()) == 1


def test_arguments_are_compared_by_value_however_they_are_given():
    assert schedule.cosine() == schedule.cosine(-20, logsnr_max=20.0)
    assert schedule.cosine() != schedule.cosine(-19.0)
    assert schedule.shifted(schedule.cosine(), 0.5) != schedule.shifted(schedule.flow(), 0.5)
    betas = table.linear_betas(num_steps=5)
    assert table.discrete(table.logsnr_table(betas)) != table.discrete(
        table.logsnr_table(betas * 1.001)
    )


def test_one_program_serves_schedules_made_with_equal_arguments():
    run = jax.jit(lambda of, u: of(u), static_argnums=0)
    u = jnp.linspace(0.0, 1.0, 5)
    first = run(schedule.shifted(schedule.cosine(-9.0, 9.0), 0.5), u)
    second = run(schedule.shifted(schedule.cosine(-9.0, 9.0), 0.5), u)
    assert run._cache_size() == 1
    np.testing.assert_array_equal(first, second)
    run(schedule.cosine(-9.0, 9.0), u)
    assert run._cache_size() == 2


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_a_python_number_will_do_for_a_time(name):
    made = schedule.SCHEDULES[name]()
    assert float(made(0.25)) == pytest.approx(float(made(jnp.float32(0.25))), rel=1e-5)


def test_a_schedule_says_how_it_was_made():
    made = schedule.shifted(schedule.flow(-9.0, 9.0), factor=0.5)
    assert repr(made) == "shifted(schedule=flow(logsnr_min=-9.0, logsnr_max=9.0), factor=0.5)"
