import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffjax.diffusion import schedule, table

LEARNED = schedule.monotone(schedule.monotone_init(jax.random.key(0), width=32))
ALL = {name: make() for name, make in schedule.SCHEDULES.items()} | {
    "cosine_narrow": schedule.cosine(-15.0, 15.0),
    "cosine_wide": schedule.cosine(-40.0, 40.0),
    "linear_zero_snr": schedule.linear(zero_snr=True),
    "quadratic_zero_snr": schedule.quadratic(zero_snr=True),
    "discrete_cosine_zero_snr": schedule.discrete_cosine(zero_snr=True),
    "sigmoid_sharp": schedule.sigmoid(0.0, 3.0, 0.3),
    "flow_wide": schedule.flow(-40.0, 40.0),
    "edm_wide": schedule.edm(logsnr_min=-20.0, logsnr_max=20.0),
    "shifted": schedule.shifted(schedule.cosine(), 64 / 256),
    "interpolated": schedule.interpolated(schedule.cosine(), 256 / 512, 32 / 512),
    "monotone": LEARNED,
}
ENDS = {
    "cosine": (-20.0, 20.0),
    "cosine_wide": (-40.0, 40.0),
    "sigmoid": (-20.0, 20.0),
    "sigmoid_sharp": (-20.0, 20.0),
    "flow": (-20.0, 20.0),
    "flow_wide": (-40.0, 40.0),
    "uniform": (-20.0, 20.0),
    "edm": (-2 * math.log(80), -2 * math.log(0.002)),
    "edm_wide": (-20.0, 20.0),
    "linear_zero_snr": (table.TERMINAL_LOGSNR, math.log(0.9999 / 1e-4)),
    "monotone": (-5.0, 13.3),
}
FINE = jnp.linspace(0.0, 1.0, 4001)


@pytest.mark.parametrize("name", ALL)
def test_logsnr_falls_strictly_and_is_finite_with_its_gradient_at_both_ends(name):
    logsnr, slope = jax.jit(lambda u: (ALL[name](u), jax.vmap(jax.grad(ALL[name]))(u)))(FINE)
    assert logsnr.dtype == jnp.float32
    assert np.all(np.diff(logsnr) < 0)
    assert np.all(np.isfinite(logsnr))
    assert np.all(np.isfinite(slope))
    assert np.all(slope < 0)


@pytest.mark.parametrize("name", ENDS)
def test_the_ends_are_met_compiled_or_not(name):
    """Compilers fold constants: (1 - u) + 1e-21 at u = 1 must not become 0."""
    low, high = ENDS[name]
    for at in (ALL[name], jax.jit(ALL[name])):
        np.testing.assert_allclose(at(jnp.array([0.0, 1.0])), [high, low], atol=1e-5)
        np.testing.assert_allclose(at(FINE)[np.array([0, -1])], [high, low], atol=1e-5)


def test_float32_cosine_of_a_right_angle_loses_the_noise_end_and_the_schedule_keeps_it():
    angle = np.float32(np.pi / 2)
    assert np.cos(angle) < 0  # alpha at t = 1, whose log is NaN
    assert float(ALL["cosine_wide"](jnp.float32(1.0))) == pytest.approx(-40.0, abs=1e-5)


def test_cosine_equals_float64_and_meets_its_ends_in_float32():
    u = np.linspace(0.0, 1.0, 257)
    b = math.atan(math.exp(-10.0))
    a = math.atan(math.exp(10.0)) - b
    np.testing.assert_allclose(ALL["cosine"](u), -2 * np.log(np.tan(a * u + b)), atol=1e-4)
    np.testing.assert_allclose(ALL["cosine"](jnp.array([0.0, 0.5, 1.0])), [20, 0, -20], atol=1e-4)


def test_linear_is_ddpms_thousand_steps():
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    logsnr = ALL["linear"](np.linspace(0, 1, 1000))
    np.testing.assert_allclose(jax.nn.sigmoid(logsnr), alpha_bar, rtol=2e-5)
    # the figures that papers quote: alpha_bar_1 = 0.9999, sqrt(alpha_bar_T) = 0.0064
    assert float(jax.nn.sigmoid(logsnr[0])) == pytest.approx(0.9999, abs=1e-7)
    assert math.sqrt(float(jax.nn.sigmoid(logsnr[-1]))) == pytest.approx(0.0064, abs=5e-5)


def test_quadratic_is_stable_diffusions_thousand_steps():
    alpha_bar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    logsnr = ALL["quadratic"](np.linspace(0, 1, 1000))
    np.testing.assert_allclose(jax.nn.sigmoid(logsnr), alpha_bar, rtol=2e-5)


def test_discrete_cosine_is_improved_ddpms_table_and_near_the_continuous_cosine_in_the_middle():
    t = np.arange(1, 1000) / 1000  # all but the clipped last step
    f = lambda t: np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2  # noqa: E731
    logsnr = ALL["discrete_cosine"](np.arange(999) / 999)
    np.testing.assert_allclose(jax.nn.sigmoid(logsnr), f(t) / f(0), atol=1e-6)
    middle = jnp.linspace(0.2, 0.8, 13)
    np.testing.assert_allclose(ALL["discrete_cosine"](middle), ALL["cosine"](middle), atol=0.1)


@pytest.mark.parametrize(
    ("start", "end", "tau"), [(-3, 3, 1.0), (0, 3, 0.3), (-3, 0, 0.7), (0, 3, 1.1), (-9, 9, 0.3)]
)
def test_sigmoid_equals_its_gamma_in_float64(start, end, tau):
    """gamma(t) of Chen 2023, algorithm 1, at the t where it meets the ends and between."""
    got = schedule.sigmoid(start, end, tau, -12.0, 12.0)
    s = lambda z: 1 / (1 + np.exp(-z / tau))  # noqa: E731
    gamma = lambda t: (s(end) - s(t * (end - start) + start)) / (s(end) - s(start))  # noqa: E731
    invert = lambda g: (  # noqa: E731
        (-tau * np.log(1 / (s(end) - g * (s(end) - s(start))) - 1) - start) / (end - start)
    )
    t_0, t_1 = invert(1 / (1 + np.exp(-12.0))), invert(1 / (1 + np.exp(12.0)))
    u = np.linspace(0, 1, 201)
    g = gamma(t_0 + (t_1 - t_0) * u)
    np.testing.assert_allclose(got(jnp.asarray(u)), np.log(g / (1 - g)), atol=3e-4)


def test_sigmoid_is_by_default_from_minus_three_to_three_at_temperature_one():
    same = schedule.sigmoid(-3, 3, 1.0, -20, 20)(FINE)
    np.testing.assert_array_equal(ALL["sigmoid"](FINE), same)


def test_flow_is_the_straight_path_in_log_snr():
    u = np.linspace(0, 1, 101)
    t_0, t_1 = 1 / (1 + np.exp(10.0)), 1 / (1 + np.exp(-10.0))
    t = t_0 + (t_1 - t_0) * u
    np.testing.assert_allclose(ALL["flow"](jnp.asarray(u)), 2 * np.log((1 - t) / t), atol=1e-4)


def test_uniform_is_straight():
    np.testing.assert_allclose(ALL["uniform"](jnp.array([0.25, 0.5, 0.75])), [10, 0, -10])


@pytest.mark.parametrize(("p_mean", "p_std"), [(-1.2, 1.2), (-0.4, 1.0), (0.0, 1.5)])
def test_edms_sigma_has_the_quantiles_of_the_log_normal(p_mean, p_std):
    """ln sigma at u is the quantile of N(p_mean, p_std^2), cut at sigma = 80 and 0.002."""
    normal = statistics.NormalDist(p_mean, p_std)
    low, high = normal.cdf(math.log(0.002)), normal.cdf(math.log(80))
    u = np.linspace(0.001, 0.999, 333)
    wanted = [normal.inv_cdf(low + (high - low) * x) for x in u]
    log_sigma = -jax.jit(schedule.edm(p_mean, p_std))(jnp.asarray(u)) / 2
    np.testing.assert_allclose(log_sigma, wanted, atol=2e-4)


def test_edms_median_noise_is_the_exponential_of_p_mean():
    wide = ALL["edm_wide"]  # p_mean and p_std are the paper's by default
    np.testing.assert_allclose(
        jnp.exp(-wide(jnp.array([0.5, 0.841344746, 0.158655254])) / 2),
        np.exp([-1.2, 0.0, -2.4]),
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", ["cosine", "linear", "sigmoid"])
def test_shifted_is_the_same_schedule_plus_twice_the_log_of_the_factor(name):
    """Twice the width, four times the pixels to average: a quarter of the SNR."""
    plain, moved = ALL[name](FINE), schedule.shifted(ALL[name], 64 / 128)(FINE)
    np.testing.assert_allclose(moved - plain, math.log(0.25), atol=4e-6)


def test_interpolated_has_each_ends_shift_at_that_end_and_their_mean_in_the_middle():
    base = ALL["cosine"]
    both = schedule.interpolated(base, 256 / 512, 32 / 512)
    u = jnp.array([0.0, 0.5, 1.0])
    wanted = 2 * np.log([1 / 2, math.sqrt(1 / 2 * 1 / 16), 1 / 16])
    np.testing.assert_allclose(both(u) - base(u), wanted, atol=4e-6)
    one = schedule.interpolated(base, 0.25, 0.25)(FINE)
    np.testing.assert_allclose(one, schedule.shifted(base, 0.25)(FINE), atol=4e-6)


numbers = st.floats(-20.0, 20.0, width=32, allow_subnormal=False)  # which XLA takes for 0


@settings(max_examples=30, deadline=None)
@given(
    units=st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=6),
    logsnr_min=st.floats(-20.0, 5.0, width=32, allow_subnormal=False),
    log_range=st.floats(-2.0, 4.0, width=32, allow_subnormal=False),
)
def test_a_learned_schedule_falls_and_meets_its_ends_whatever_its_parameters(
    units, logsnr_min, log_range
):
    units = units + [(0.0, 0.0, 0.0)] * (6 - len(units))  # one shape, one compile
    rate, offset, bend = jnp.asarray(units).T
    params = dict(
        logsnr_min=jnp.float32(logsnr_min),
        log_range=jnp.float32(log_range),
        rate=rate,
        offset=offset,
        bend=bend,
    )
    logsnr, slope = COMPILED(params)
    logsnr_max = np.float32(logsnr_min) + np.exp(np.float32(log_range))
    assert np.all(np.diff(logsnr) <= 0)
    assert np.all(slope < 0)
    assert float(logsnr[0]) == pytest.approx(float(logsnr_max), abs=1e-5)
    assert float(logsnr[-1]) == np.float32(logsnr_min)


@jax.jit
def COMPILED(params):  # one compile for all examples
    at = schedule.monotone(params)
    return at(FINE), schedule.dlogsnr_du(at, FINE)


def test_a_learned_schedule_is_its_formula_in_float64():
    params = schedule.monotone_init(jax.random.key(1), width=8, logsnr_min=-9.0, logsnr_max=7.0)
    rate, bend = (np.logaddexp(0, np.asarray(params[k], np.float64)) for k in ("rate", "bend"))
    offset = np.asarray(params["offset"], np.float64)
    unit = lambda u: 1 / (1 + np.exp(-(rate * u[:, None] + offset)))  # noqa: E731
    g = lambda u: u + np.mean(bend * unit(u), axis=1)  # noqa: E731
    u = np.linspace(0, 1, 51)
    wanted = 7 - 16 * (g(u) - g(u[:1])) / (g(u[-1:]) - g(u[:1]))
    np.testing.assert_allclose(schedule.monotone(params)(jnp.asarray(u)), wanted, atol=2e-5)


def test_a_learned_schedule_can_be_fitted_to_the_cosine():
    """It bends: from nearly straight to within half a nat of the cosine between 0.05 and 0.95."""
    u = jnp.linspace(0.05, 0.95, 64)
    wanted = ALL["cosine"](u)
    params = schedule.monotone_init(jax.random.key(2), 64, -20.0, 20.0)

    def loss(params):
        return jnp.mean(jnp.square(schedule.monotone(params, learn_ends=True)(u) - wanted))

    @jax.jit
    def fit(params):
        def body(state, _):
            params, m, v, n = state
            grads = jax.grad(loss)(params)
            m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
            v = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, v, grads)
            step = lambda p, m, v: (  # noqa: E731
                p - 0.05 * (m / (1 - 0.9**n)) / (jnp.sqrt(v / (1 - 0.99**n)) + 1e-8)
            )
            return (jax.tree.map(step, params, m, v), m, v, n + 1), None

        zero = jax.tree.map(jnp.zeros_like, params)
        return jax.lax.scan(body, (params, zero, zero, 1.0), length=1000)[0][0]

    fitted = fit(params)
    assert float(loss(params)) > 20
    assert float(jnp.max(jnp.abs(schedule.monotone(fitted)(u) - wanted))) < 0.5


def test_fixed_ends_take_no_gradient_and_learned_ends_do():
    params = schedule.monotone_init(jax.random.key(3), width=8)
    value = lambda params, learn: schedule.monotone(params, learn)(jnp.float32(0.3))  # noqa: E731
    fixed = jax.grad(value)(params, False)
    learned = jax.grad(value)(params, True)
    for name in ("logsnr_min", "log_range"):
        assert float(fixed[name]) == 0
        assert float(learned[name]) > 0
    for name in ("rate", "offset", "bend"):
        np.testing.assert_array_equal(fixed[name], learned[name])
        assert np.any(fixed[name] != 0)


def test_the_slope_of_the_cosine_is_minus_two_a_over_sine_times_cosine():
    u = np.linspace(0, 1, 101)
    b = math.atan(math.exp(-10.0))
    a = math.pi / 2 - 2 * b
    wanted = -2 * a / (np.sin(a * u + b) * np.cos(a * u + b))
    got = schedule.dlogsnr_du(ALL["cosine"], jnp.asarray(u, jnp.float32))
    np.testing.assert_allclose(got, wanted, rtol=2e-4)


@pytest.mark.parametrize("name", ["edm", "sigmoid", "linear", "monotone"])
def test_the_slope_is_the_change_of_logsnr_integrated(name):
    u = jnp.linspace(0.1, 0.9, 2001)
    logsnr, slope = jax.jit(lambda u: (ALL[name](u), schedule.dlogsnr_du(ALL[name], u)))(u)
    slope = np.asarray(slope, np.float64)
    area = np.sum((slope[1:] + slope[:-1]) / 2) * (0.8 / 2000)
    fall = float(logsnr[-1] - logsnr[0])
    assert area == pytest.approx(fall, rel=1e-3)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("name", ALL)
def test_a_schedule_keeps_the_shape_of_u(name, shape):
    both = lambda u: (ALL[name](u), schedule.dlogsnr_du(ALL[name], u))  # noqa: E731
    for out in jax.eval_shape(both, jax.ShapeDtypeStruct(shape, jnp.float32)):
        assert (out.shape, out.dtype) == (shape, jnp.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedule.cosine(5.0, -5.0), "logsnr_min 5"),
        (lambda: schedule.flow(-math.inf, 5.0), "logsnr_min -inf"),
        (lambda: schedule.linear(0.0, 0.02), "beta_min=0.0"),
        (lambda: schedule.sigmoid(3.0, -3.0), "start=3.0"),
        (lambda: schedule.sigmoid(tau=0.0), "tau=0.0"),
        (lambda: schedule.edm(p_std=0.0), "p_std=0.0"),
        (lambda: schedule.edm(logsnr_min=-40.0), "logsnr_min=-40.0"),
        (lambda: schedule.edm(p_mean=-8.0), "p_mean=16.0"),
        (lambda: schedule.shifted(ALL["cosine"], 0.0), "factor=0.0"),
        (lambda: schedule.interpolated(ALL["cosine"], 0.1, 0.5), "factor_noise=0.5"),
    ],
)
def test_a_bad_argument_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
