import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import schedule, table
from diffjax.diffusion.sampling import spacing

BETAS = table.linear_betas()
TABLE = table.logsnr_table(BETAS)


def steps_of(rungs):
    """Which steps of 1 .. T a ladder on the table visits."""
    rungs = np.asarray(rungs)
    assert np.isposinf(rungs[-1])
    return [int(np.argmin(np.abs(TABLE - rung))) + 1 for rung in rungs[:-1]]


@pytest.mark.parametrize("num_steps", [1, 2, 7, 50])
@pytest.mark.parametrize("of", ["cosine", "linear", "edm"])
@pytest.mark.parametrize("name", spacing.SPACINGS)
def test_a_ladder_has_a_rung_per_evaluation_and_rises_from_noise_to_a_clean_end(
    name, of, num_steps
):
    at = schedule.SCHEDULES[of]()
    rungs = spacing.SPACINGS[name](at, num_steps)
    assert rungs.shape == (num_steps + 1,)
    assert rungs.dtype == jnp.float32
    assert np.all(np.diff(rungs) > 0)
    assert np.all(np.isfinite(rungs[:-1]))
    assert np.isposinf(rungs[-1]) or name in spacing.NOT_CLEAN
    if not name.startswith(("leading", "fifths")):
        assert float(rungs[0]) == pytest.approx(float(at(jnp.float32(1.0))), abs=1e-4)


@pytest.mark.parametrize("of", ["cosine", "linear"])
@pytest.mark.parametrize("name", spacing.SPACINGS)
def test_a_ladder_made_inside_a_compiled_function_is_the_same(name, of):
    rungs = lambda: spacing.SPACINGS[name](schedule.SCHEDULES[of](), 6)  # noqa: E731
    np.testing.assert_allclose(jax.jit(rungs)(), rungs(), atol=1e-5)


def test_uniform_is_uniform_in_u():
    at = schedule.cosine()
    rungs = spacing.uniform(at, 4)
    np.testing.assert_allclose(rungs[:-1], at(jnp.array([1.0, 0.75, 0.5, 0.25])), atol=1e-5)
    finite = spacing.uniform(at, 4, clean=False)
    np.testing.assert_array_equal(finite[:-1], rungs[:-1])
    assert float(finite[-1]) == pytest.approx(20.0, abs=1e-4)


def test_uniform_works_under_jit_and_its_gradient_reaches_a_learned_schedule():
    params = schedule.monotone_init(jax.random.key(0), width=8)
    rungs = lambda params: spacing.uniform(schedule.monotone(params), 5)  # noqa: E731
    np.testing.assert_allclose(jax.jit(rungs)(params), rungs(params), atol=1e-5)
    slope = jax.grad(lambda params: rungs(params)[2])(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))
    assert np.any(slope["rate"] != 0)


def test_uniform_in_logsnr_has_equal_gaps_between_the_ends_of_the_schedule():
    rungs = spacing.uniform_logsnr(schedule.cosine(), 8, clean=False)
    np.testing.assert_allclose(rungs, np.linspace(-20, 20, 9), atol=1e-4)
    clean = jax.jit(lambda: spacing.uniform_logsnr(schedule.cosine(), 8))()
    np.testing.assert_allclose(clean[:-1], rungs[:-1], atol=1e-5)


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
@pytest.mark.parametrize("num_steps", [2, 18, 40])
def test_karras_is_edms_equation_five_with_its_ends(num_steps, rho):
    i = np.arange(num_steps)
    low, high = 0.002 ** (1 / rho), 80 ** (1 / rho)
    sigma = (high + i / (num_steps - 1) * (low - high)) ** rho
    rungs = np.asarray(spacing.karras(num_steps, rho=rho), np.float64)
    np.testing.assert_allclose(np.exp(-rungs[:-1] / 2), sigma, rtol=1e-6)
    np.testing.assert_allclose(np.exp(-rungs[[0, -2]] / 2), [80, 0.002], rtol=1e-6)
    assert np.exp(-rungs[-1] / 2) == 0


def test_karras_of_a_schedule_has_the_schedules_noise_at_both_ends():
    rungs = spacing.karras_of(schedule.edm(), 18)
    np.testing.assert_allclose(rungs, spacing.karras(18), atol=1e-4)
    wide = spacing.karras_of(schedule.cosine(), 9)
    np.testing.assert_allclose(wide[jnp.array([0, -2])], [-20, 20], atol=1e-4)


def test_table_spacings_are_lin_et_al_s_table_two():
    """T = 1000 in 10 steps."""
    assert steps_of(spacing.trailing(TABLE, 10)) == list(range(1000, 0, -100))
    assert steps_of(spacing.leading(TABLE, 10)) == list(range(901, 0, -100))
    assert steps_of(spacing.linspace(TABLE, 10)) == list(range(1000, 0, -111))


def test_spacings_after_diffusers_keep_its_steps():
    """Of DDIM, and of DPM-Solver++, in 20 steps with steps_offset=1; they count from 0."""
    ddim = spacing.leading_1(TABLE, 20)
    assert ddim.shape == (21,)
    assert steps_of(jnp.append(ddim, jnp.inf)) == [*range(952, 0, -50), 1]
    assert steps_of(spacing.leading_inner(TABLE, 20)) == list(range(942, 2, -47))
    inner = [1 + round(999 * i / 20) for i in range(20, 0, -1)]
    assert steps_of(spacing.linspace_inner(TABLE, 20)) == inner


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 30, 333, 999])
def test_trailing_visits_the_last_step_and_leading_never_does(num_steps):
    """So that the white noise a sampler starts from is what training calls its last step."""
    assert steps_of(spacing.trailing(TABLE, num_steps))[0] == 1000
    assert steps_of(spacing.linspace(TABLE, num_steps))[0] == 1000
    leading = steps_of(spacing.leading(TABLE, num_steps))
    assert leading[0] < 1000
    assert leading[-1] == 1
    assert len(leading) == num_steps


@pytest.mark.parametrize("name", ["trailing", "leading", "linspace"])
def test_all_of_a_tables_steps_are_the_table(name):
    rungs = getattr(spacing, name)(TABLE, 1000)
    np.testing.assert_array_equal(rungs[:-1], TABLE[::-1].astype(np.float32))


@pytest.mark.parametrize("sections", [10, "ddim25", "10,15,20"])
def test_respaced_rungs_are_the_table_of_the_respaced_betas(sections):
    rungs = spacing.respaced(TABLE, sections)
    wanted = table.logsnr_table(table.respaced(BETAS, sections))[::-1]
    np.testing.assert_allclose(rungs[:-1], wanted, rtol=1e-6, atol=1e-6)
    assert np.isposinf(rungs[-1])


def test_a_zero_terminal_table_starts_at_its_floor():
    zero = table.logsnr_table(table.zero_terminal_snr(BETAS))
    assert float(spacing.trailing(zero, 5)[0]) == table.TERMINAL_LOGSNR


def test_a_schedule_on_a_grid_is_its_table():
    np.testing.assert_allclose(spacing.on_grid(schedule.linear()), TABLE, atol=2e-3)


def test_explicit_rungs_are_kept_and_get_a_clean_end():
    np.testing.assert_array_equal(spacing.explicit([-5, 0, 2.5]), [-5, 0, 2.5, np.inf])
    np.testing.assert_array_equal(spacing.explicit([-5, np.inf]), [-5, np.inf])
    np.testing.assert_array_equal(spacing.explicit([-5, 2], clean=False), [-5, 2])


@pytest.mark.parametrize(
    ("logsnrs", "message"),
    [
        ([-5.0, 0.0, 0.0], r"logsnrs\[2\]=0.0: must lie above logsnrs\[1\]=0.0"),
        ([3.0, 2.0], r"logsnrs\[1\]=2.0"),
        ([3.0, np.float64(3.0) + 1e-9], r"logsnrs\[1\]=3.0"),
        ([-5.0, np.inf, 8.0], r"logsnrs\[1\]=inf"),
        ([-np.inf, 0.0], r"logsnrs\[0\]=-inf"),
        ([0.0, np.nan], r"logsnrs\[1\]=nan"),
        ([np.inf], r"logsnrs\[0\]=inf"),
        ([], "at least one"),
    ],
)
def test_an_explicit_list_that_does_not_rise_is_named_with_its_index(logsnrs, message):
    with pytest.raises(ValueError, match=message):
        spacing.explicit(logsnrs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: spacing.uniform(schedule.cosine(), 0), "num_steps=0: at least 1"),
        (lambda: spacing.uniform_logsnr(schedule.cosine(), 0), "num_steps=0"),
        (lambda: spacing.karras(0), "num_steps=0"),
        (lambda: spacing.karras(5, 3.0, 2.0), "sigma_min=3.0"),
        (lambda: spacing.karras(5, rho=0.0), "rho=0.0"),
        (lambda: spacing.trailing(TABLE, 1001), "num_steps=1001: between 1 and the table's 1000"),
        (lambda: spacing.leading(TABLE, 0), "num_steps=0"),
        (lambda: spacing.explicit([0.0], clean=False), "at least two rungs"),
    ],
)
def test_a_bad_argument_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_27_steps_lie_in_the_fifths_of_a_chain_as_glide_takes_them():
    """Nichol et al. 2022, app. B.2: 10, 10, 3, 2, 2; the noisiest of their code is the 998th."""
    table = -np.arange(1000.0)
    steps = []
    for fifth, count in enumerate((10, 10, 3, 2, 2)):
        steps += [200 * fifth + round(i * 199 / (count - 1)) for i in range(count)]
    steps[-1] = 997
    rungs = spacing.fifths(table, 27)
    np.testing.assert_array_equal(rungs[:-1], -np.array(steps[::-1], np.float32))
    assert np.isposinf(rungs[-1])
    for count in (5, 6, 13, 50, 100):
        rungs = np.asarray(spacing.fifths(table, count))
        assert len(rungs) == count + 1
        assert (np.diff(rungs[:-1]) > 0).all()
    for steps, count in ((1000, 4), (1000, 900), (7, 7)):
        wanted = spacing.linspace(table[:steps], count)
        np.testing.assert_array_equal(spacing.fifths(table[:steps], count), wanted)
