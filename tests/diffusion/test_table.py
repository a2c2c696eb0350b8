import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import table

LINEAR = table.linear_betas()
TABLES = {
    "linear": LINEAR,
    "quadratic": table.quadratic_betas(),
    "cosine": table.cosine_betas(),
    "cosine_4000": table.cosine_betas(4000),
    "linear_zero": table.zero_terminal_snr(LINEAR),
    "quadratic_zero": table.zero_terminal_snr(table.quadratic_betas()),
    "cosine_zero": table.zero_terminal_snr(table.cosine_betas()),
}


def test_ddpms_linear_betas_leave_four_hundred_thousandths_of_the_signal():
    """alpha_bar_T = 4.0358e-5, sqrt of it 0.0064; alpha_bar_1 = 0.9999."""
    alpha_bar = np.exp(table.log_alpha_bar(LINEAR))
    assert alpha_bar[-1] == pytest.approx(4.0358e-5, rel=1e-5)
    assert alpha_bar[0] == pytest.approx(0.9999, abs=1e-15)
    np.testing.assert_allclose(alpha_bar, np.cumprod(1 - LINEAR), rtol=1e-12)
    np.testing.assert_allclose(np.diff(LINEAR), (0.02 - 1e-4) / 999, rtol=1e-9)


def test_quadratic_betas_have_evenly_spaced_roots_and_stable_diffusions_terminal_signal():
    betas = TABLES["quadratic"]
    np.testing.assert_allclose(betas[[0, -1]], [0.00085, 0.012], rtol=1e-12)
    np.testing.assert_allclose(np.diff(np.sqrt(betas), 2), 0, atol=1e-15)
    # Lin et al. 2023, table 1: sqrt(alpha_bar_T) = 0.068265
    assert np.exp(table.log_alpha_bar(betas)[-1] / 2) == pytest.approx(0.068265, abs=5e-7)


@pytest.mark.parametrize("num_steps", [50, 1000])
def test_cosine_betas_are_improved_ddpms_formula(num_steps):
    t = np.arange(num_steps + 1) / num_steps
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = table.cosine_betas(num_steps)
    np.testing.assert_allclose(betas[:-1], 1 - f[1:-1] / f[:-2], rtol=1e-9)
    assert betas[-1] == 0.999
    alpha_bar = np.exp(table.log_alpha_bar(betas))
    np.testing.assert_allclose(alpha_bar[:-1], f[1:-1] / f[0], rtol=1e-9)


@pytest.mark.parametrize("name", TABLES)
def test_every_table_of_logsnr_falls_strictly_and_is_finite_in_float32(name):
    logsnrs = table.logsnr_table(TABLES[name])
    assert logsnrs.dtype == np.float64
    assert np.all(np.isfinite(logsnrs))
    assert np.all(np.diff(logsnrs.astype(np.float32)) < 0)


@pytest.mark.parametrize("name", ["linear", "quadratic", "cosine"])
def test_logsnr_is_the_log_of_alpha_bar_over_one_minus_alpha_bar(name):
    alpha_bar = np.cumprod(1 - TABLES[name])
    np.testing.assert_allclose(
        table.logsnr_table(TABLES[name]), np.log(alpha_bar / (1 - alpha_bar)), rtol=1e-9, atol=1e-11
    )


def test_float32_cumprod_loses_the_noise_of_the_first_step_and_the_table_keeps_it():
    betas = np.full(3, 1e-9)
    truth = -np.log(1e-9 * np.arange(1, 4))
    np.testing.assert_allclose(table.logsnr_table(betas), truth, rtol=1e-9)
    assert np.all(1 - np.cumprod(1 - betas.astype(np.float32)) == 0)
    # DDPM's own first step, in bfloat16: 1 - alpha_bar_1 = 0
    assert float(1 - (1 - jnp.bfloat16(LINEAR[0]))) == 0
    assert table.logsnr_table(LINEAR)[0] == pytest.approx(np.log(0.9999 / 1e-4), rel=1e-10)


@pytest.mark.parametrize("name", ["linear", "quadratic", "cosine"])
def test_zero_terminal_snr_keeps_the_first_step_and_leaves_no_signal_at_the_last(name):
    """Lin et al. 2023, algorithm 1, step by step."""
    root = np.sqrt(np.cumprod(1 - TABLES[name]))
    wanted = (root - root[-1]) * root[0] / (root[0] - root[-1])
    betas = table.zero_terminal_snr(TABLES[name])
    got = np.exp(table.log_alpha_bar(betas) / 2)
    np.testing.assert_allclose(got, wanted, rtol=1e-8, atol=1e-16)
    assert got[0] == pytest.approx(root[0], rel=1e-14)
    assert betas[-1] == 1
    assert got[-1] == 0
    assert table.logsnr_table(betas)[-1] == table.TERMINAL_LOGSNR


def test_zero_terminal_snr_of_what_has_none_left_changes_nothing():
    once = TABLES["linear_zero"]
    np.testing.assert_array_equal(table.zero_terminal_snr(once), once)


@pytest.mark.parametrize("name", TABLES)
def test_posterior_variance_is_that_of_two_gaussians_times_each_other(name):
    """1 / beta~ = alpha / beta + 1 / (1 - alpha_bar_{t-1}): precisions add."""
    betas = TABLES[name]
    before = 1 - np.exp(table.log_alpha_bar(betas)[:-1])
    wanted = 1 / ((1 - betas[1:]) / betas[1:] + 1 / before)
    got = table.posterior_variances(betas)
    np.testing.assert_allclose(got[1:], wanted, rtol=1e-9)
    assert got[0] == 0


@pytest.mark.parametrize("name", TABLES)
def test_posterior_log_variance_at_the_first_step_is_the_seconds_and_never_log_zero(name):
    log_variances = table.posterior_log_variances(TABLES[name])
    variances = table.posterior_variances(TABLES[name])
    np.testing.assert_allclose(log_variances[1:], np.log(variances[1:]))
    assert log_variances[0] == log_variances[1]
    assert np.all(np.isfinite(log_variances))
    # a clamp at 1e-20 would read -46
    assert log_variances.min() > -13


@pytest.mark.parametrize("sections", [1, 7, 25, 1000, "250", "ddim25", "10,15,20", [10, 10, 5]])
@pytest.mark.parametrize("name", ["linear", "cosine", "linear_zero"])
def test_respaced_betas_have_the_same_noise_at_the_kept_steps(name, sections):
    betas = TABLES[name]
    kept = table.kept_steps(1000, sections)
    shorter = table.respaced(betas, sections)
    assert len(shorter) == len(kept)
    assert np.all((shorter > 0) & (shorter <= 1))
    np.testing.assert_allclose(
        table.log_alpha_bar(shorter), table.log_alpha_bar(betas)[kept], rtol=1e-10
    )


def walk(num_steps, counts):
    """Which steps are kept, walked with a fractional stride section by section."""
    kept, first = [], 0
    for i, count in enumerate(counts):
        size = num_steps // len(counts) + (i < num_steps % len(counts))
        stride = (size - 1) / (count - 1) if count > 1 else 1
        kept += [first + round(stride * j) for j in range(count)]
        first += size
    return kept


@pytest.mark.parametrize(
    ("num_steps", "sections", "counts"),
    [
        (1000, 50, [50]),
        (300, "10,15,20", [10, 15, 20]),
        (4000, [25, 1, 7], [25, 1, 7]),
        (10, (2, 3, 1), [2, 3, 1]),
    ],
)
def test_respacing_spreads_each_sections_steps_evenly_with_both_its_ends(
    num_steps, sections, counts
):
    assert table.kept_steps(num_steps, sections).tolist() == walk(num_steps, counts)


def test_ddim_respacing_has_a_whole_stride_from_the_first_step():
    assert table.kept_steps(1000, "ddim25").tolist() == list(range(0, 1000, 40))
    assert table.kept_steps(300, "10,10,10")[[0, 9, 10, -1]].tolist() == [0, 99, 100, 299]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ("ddim501", "'ddim501': no whole stride takes 501"),
        ("ddim", "'ddim': a count"),
        ("10;20", "'10;20': a count"),
        (1001, "1001 of a section of 1000"),
        ([500, 501], "501 of a section of 500"),
        (0, "0 of a section of 1000"),
        ([], "between 1 and 1000 sections"),
    ],
)
def test_a_respacing_that_cannot_be_is_named(sections, message):
    with pytest.raises(ValueError, match=message):
        table.kept_steps(1000, sections)


@pytest.mark.parametrize("name", TABLES)
def test_discrete_passes_through_every_step_and_runs_straight_between_two(name):
    logsnrs = table.logsnr_table(TABLES[name])
    steps = len(logsnrs)
    schedule = jax.jit(table.discrete(logsnrs))
    grid = np.arange(steps) / (steps - 1)
    # u in float32 is off by 3e-8, so the logsnr by that much of its slope
    room = 1e-6 * np.abs(np.gradient(logsnrs, grid)) + 2e-6 * np.abs(logsnrs)
    assert np.all(np.abs(schedule(grid) - logsnrs) < 1e-6 + room)
    middle = (logsnrs[1:] + logsnrs[:-1]) / 2
    between = schedule((grid[1:] + grid[:-1]) / 2)
    assert np.all(np.abs(between - middle) < 1e-6 + room[1:] + room[:-1])
    np.testing.assert_allclose(schedule(jnp.array([0.0, 1.0])), logsnrs[[0, -1]], rtol=1e-6)


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        ([0.1, 0.0, 0.2], r"betas\[1\]=0.0"),
        ([0.1, 1.0, 0.2], r"betas\[1\]=1.0"),
        ([0.1, 0.2, 1.5], r"betas\[2\]=1.5"),
        ([0.1, np.nan], r"betas\[1\]=nan"),
        ([0.5, 1 - 1e-14, 1.0], "before the floor -30"),
    ],
)
def test_a_beta_outside_its_range_is_named_with_its_index(betas, message):
    with pytest.raises(ValueError, match=message):
        table.logsnr_table(np.array(betas))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: table.linear_betas(0.02, 1e-4), "beta_min=0.02"),
        (lambda: table.quadratic_betas(num_steps=1), "num_steps=1"),
        (lambda: table.cosine_betas(1), "num_steps=1"),
        (lambda: table.cosine_betas(s=-1.0), "s=-1.0"),
        (lambda: table.discrete(np.zeros(1)), "logsnrs of 1 steps"),
        (lambda: table.posterior_log_variances(np.array([0.1])), "betas of 1 steps"),
    ],
)
def test_a_bad_argument_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_step_of_a_log_snr_is_exact_on_the_table_and_straight_between():
    logsnrs = table.logsnr_table(table.quadratic_betas())
    steps = table.steps_of(logsnrs)
    np.testing.assert_array_equal(steps(jnp.asarray(logsnrs, jnp.float32)), np.arange(1000))
    halfway = jnp.asarray((logsnrs[400] + logsnrs[401]) / 2, jnp.float32)
    assert float(steps(halfway)) == pytest.approx(400.5, abs=1e-3)
    np.testing.assert_array_equal(steps(jnp.array([50.0, -50.0])), [0, 999])
    assert steps == table.steps_of(logsnrs.copy())


def test_a_staircase_visits_each_step_of_its_table_equally_often_and_no_other():
    logsnrs = np.float32([5.0, 2.0, -1.0])
    u = np.array([0.0, 0.33, 0.34, 0.66, 0.67, 0.999, 1.0], np.float32)
    np.testing.assert_array_equal(table.staircase(logsnrs)(u), logsnrs[[0, 0, 1, 1, 2, 2, 2]])
    assert table.staircase(logsnrs) == table.staircase(logsnrs.copy())


def test_a_step_may_be_told_in_other_units():
    logsnrs = table.logsnr_table(table.cosine_betas(40))
    told = table.steps_of(logsnrs, 25.0)(np.float32(logsnrs))
    np.testing.assert_array_equal(told, 25.0 * np.arange(40))
