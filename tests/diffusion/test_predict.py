import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffjax.core.types import Guess
from diffjax.diffusion import predict
from diffjax.diffusion.process import alpha_sigma, diffuse
from tests.diffusion.helpers import images

KINDS = predict.KINDS
PAIRS = [(have, want) for have in KINDS for want in KINDS]
LOGSNR = st.floats(-20, 20, width=32)
SIZE = st.integers(-12, 12).map(lambda power: 2.0**power)
# The unit roundoff of each type: half the distance from 1 to the next number.
ROUNDOFF = {jnp.float32: 2.0**-24, jnp.bfloat16: 2.0**-8}


def alpha_sigma64(logsnr):
    logsnr = np.float64(logsnr)
    return 1 / np.sqrt(1 + np.exp(-logsnr)), 1 / np.sqrt(1 + np.exp(logsnr))


def parts64(kind, logsnr):
    """(a, b) of output = a x_0 + b eps, each from its paper, in float64."""
    alpha, sigma = alpha_sigma64(logsnr)
    if kind == "edm":  # in the paper's own x = x_0 + s n
        s, data = sigma / alpha, 0.5
        c_skip = data**2 / (s**2 + data**2)
        c_out = s * data / np.sqrt(s**2 + data**2)
        # 1 - c_skip, without the difference
        return s**2 / (s**2 + data**2) / c_out, -c_skip * s / c_out
    return {
        "eps": (0.0, 1.0),
        "x_0": (1.0, 0.0),
        "v": (-sigma, alpha),
        "score": (0.0, -1 / sigma),
        "flow": (-1.0, 1.0),
    }[kind]


def conversion64(have, want, logsnr):
    """p, q and |q| before cancellation of wanted = p output + q x_t, in float64."""
    alpha, sigma = alpha_sigma64(logsnr)
    (a, b), (c, d) = parts64(have, logsnr), parts64(want, logsnr)
    det = alpha * b - sigma * a
    size = (abs(b * c) + abs(a * d)) / abs(det)
    return (alpha * d - sigma * c) / det, (b * c - a * d) / det, size


@jax.jit
def every_conversion(outputs, x_t, logsnr_t):
    return {
        (have, want): predict.convert(outputs[have], x_t, logsnr_t, have, want)
        for have, want in PAIRS
    }


def outputs_like(seed, size, dtype):
    return {k: (size * images(seed + i, (2, 2, 2, 3))).astype(dtype) for i, k in enumerate(KINDS)}


def check_every_conversion(outputs, x_t, logsnr_t, roundoff):
    """|error| <= C u (|p| |output| + |q|' |x_t|), C = 6 + |logsnr|.

    u is the unit roundoff and |q|' the size of q's two terms, before they cancel. |logsnr| is in
    C because alpha and sigma are exponentials of it: its rounding becomes their relative error.
    """
    got = every_conversion(outputs, x_t, logsnr_t)
    logsnr = np.asarray(logsnr_t, np.float64)[0]
    x_t = np.asarray(x_t, np.float64)
    for have, want in PAIRS:
        p, q, q_size = conversion64(have, want, logsnr)
        output = np.asarray(outputs[have], np.float64)
        error = np.abs(np.asarray(got[have, want], np.float64) - (p * output + q * x_t))
        bound = abs(p) * np.abs(output) + q_size * np.abs(x_t)
        assert np.all(error <= (6 + abs(logsnr)) * roundoff * bound), (have, want, logsnr)


@settings(max_examples=50, deadline=None)
@given(logsnr=LOGSNR, size=SIZE)
def test_every_prediction_gives_every_other_to_float32_rounding(logsnr, size):
    x_t = images(9, (2, 2, 2, 3))
    logsnr_t = jnp.full((2,), logsnr, jnp.float32)
    check_every_conversion(outputs_like(0, size, jnp.float32), x_t, logsnr_t, ROUNDOFF[jnp.float32])


@settings(max_examples=25, deadline=None)
@given(logsnr=LOGSNR, size=SIZE)
def test_bfloat16_images_at_a_float32_level_lose_nothing_more(logsnr, size):
    """Inputs of bfloat16 are converted in float32: float32's bound, as long as the kind changes."""
    x_t = images(9, (2, 2, 2, 3)).astype(jnp.bfloat16)
    logsnr_t = jnp.full((2,), logsnr, jnp.float32)
    check_every_conversion(
        outputs_like(0, size, jnp.bfloat16), x_t, logsnr_t, ROUNDOFF[jnp.float32]
    )


@settings(max_examples=25, deadline=None)
@given(logsnr=LOGSNR, size=SIZE)
def test_all_in_bfloat16_every_prediction_gives_every_other_to_its_rounding(logsnr, size):
    x_t = images(9, (2, 2, 2, 3)).astype(jnp.bfloat16)
    logsnr_t = jnp.full((2,), logsnr, jnp.bfloat16)
    check_every_conversion(
        outputs_like(0, size, jnp.bfloat16), x_t, logsnr_t, ROUNDOFF[jnp.bfloat16]
    )


@jax.jit
def every_way_back(outputs, x_t, logsnr_t):
    there = every_conversion(outputs, x_t, logsnr_t)
    return {
        (have, want): predict.convert(there[have, want], x_t, logsnr_t, want, have)
        for have, want in PAIRS
    }


@settings(max_examples=25, deadline=None)
@given(logsnr=LOGSNR)
def test_every_prediction_to_every_other_and_back_is_where_it_was(logsnr):
    x_t, outputs = images(9, (2, 2, 2, 3)), outputs_like(0, 1.0, jnp.float32)
    back = every_way_back(outputs, x_t, jnp.full((2,), logsnr, jnp.float32))
    size_x = np.abs(np.asarray(x_t, np.float64))
    for have, want in PAIRS:
        p, _, q_size = conversion64(have, want, logsnr)
        p_back, _, q_size_back = conversion64(want, have, logsnr)
        size = np.abs(np.asarray(outputs[have], np.float64))
        # what rounding left in `wanted`, times the way back, and the way back's own
        bound = 2 * abs(p_back) * (abs(p) * size + q_size * size_x) + q_size_back * size_x
        error = np.abs(np.asarray(back[have, want], np.float64) - np.asarray(outputs[have]))
        assert np.all(error <= (6 + abs(logsnr)) * 2.0**-24 * bound), (have, want)


@jax.jit
def every_target(x_0, eps, logsnr_t):
    return {kind: predict.target(x_0, eps, logsnr_t, kind) for kind in KINDS}


@settings(max_examples=25, deadline=None)
@given(logsnr=LOGSNR)
def test_the_target_of_one_kind_becomes_the_target_of_another(logsnr):
    x_0, eps = images(0, (2, 2, 2, 3)), images(1, (2, 2, 2, 3))
    logsnr_t = jnp.full((2,), logsnr, jnp.float32)
    got = every_conversion(every_target(x_0, eps, logsnr_t), diffuse(x_0, eps, logsnr_t), logsnr_t)
    image, noise = np.asarray(x_0, np.float64), np.asarray(eps, np.float64)
    alpha, sigma = alpha_sigma64(logsnr)
    x_t_size = alpha * np.abs(image) + sigma * np.abs(noise)
    for have, want in PAIRS:
        (a, b), (c, d) = parts64(have, logsnr), parts64(want, logsnr)
        p, _, q_size = conversion64(have, want, logsnr)
        # the rounding of the target and of x_t themselves, on their way through p and q
        bound = abs(p) * (abs(a) * np.abs(image) + abs(b) * np.abs(noise)) + q_size * x_t_size
        error = np.abs(np.asarray(got[have, want], np.float64) - (c * image + d * noise))
        assert np.all(error <= (8 + 2 * abs(logsnr)) * 2.0**-24 * bound), (have, want)


def test_the_named_conversions_are_those_of_the_table():
    x_t, logsnr_t = images(9), jnp.array([-3.0, 0.0, 2.0, 7.0])
    for have in KINDS:
        output = images(0)
        for name in ("x_0", "eps", "v", "score"):
            got = getattr(predict, f"to_{name}")(output, x_t, logsnr_t, have)
            np.testing.assert_allclose(
                got, predict.convert(output, x_t, logsnr_t, have, name), rtol=1e-5, atol=1e-5
            )


def test_v_at_equal_signal_and_noise_is_their_difference_over_root_two():
    x_0, eps = images(0), images(1)
    v = predict.target(x_0, eps, jnp.zeros(4), "v")
    np.testing.assert_allclose(v, (eps - x_0) / np.sqrt(2), atol=1e-6)


def test_the_score_is_the_gradient_of_log_q():
    x_0, eps = images(0), images(1)
    logsnr_t = jnp.array([-6.0, -1.0, 0.5, 6.0])

    def log_q(x_t):
        alpha, sigma = alpha_sigma(logsnr_t)
        return -jnp.sum(jnp.square((x_t - alpha * x_0) / sigma)) / 2

    x_t = diffuse(x_0, eps, logsnr_t)
    score = jax.grad(log_q)(x_t)
    np.testing.assert_allclose(
        predict.target(x_0, eps, logsnr_t, "score"), score, rtol=1e-4, atol=1e-4
    )
    got = predict.to_score(x_0, x_t, logsnr_t, "x_0")
    np.testing.assert_allclose(got, score, rtol=1e-5, atol=2e-4)


def test_flow_is_the_velocity_of_the_straight_path():
    """z = (1 - t) x_0 + t eps is x_t / (alpha + sigma), at t = sigma / (alpha + sigma)."""
    x_0, eps = images(0), images(1)
    logsnr_t = jnp.array([-6.0, -1.0, 0.5, 6.0])
    alpha, sigma = alpha_sigma(logsnr_t)
    time = sigma / (alpha + sigma)
    z, velocity = jax.jvp(lambda t: (1 - t) * x_0 + t * eps, (time,), (jnp.ones_like(time),))
    x_t = diffuse(x_0, eps, logsnr_t)
    np.testing.assert_allclose(x_t / (alpha + sigma), z, atol=1e-6)
    np.testing.assert_allclose(predict.target(x_0, eps, logsnr_t, "flow"), velocity, atol=1e-6)
    # to either end along the velocity, from an output that is nobody's truth
    output = images(2)
    ahead = predict.to_x_0(output, x_t, logsnr_t, "flow")
    np.testing.assert_allclose(ahead, z - time * output, atol=1e-5)
    behind = predict.to_eps(output, x_t, logsnr_t, "flow")
    np.testing.assert_allclose(behind, z + (1 - time) * output, atol=1e-5)


def test_edm_is_the_papers_c_skip_c_out_and_c_in():
    """D(x; s) = c_skip x + c_out F(c_in x), Karras et al. 2022, eq. 7 and table 1."""
    s = np.array([0.002, 0.3, 1.0, 80.0]).reshape(-1, 1, 1, 1)
    x = np.asarray(images(0), np.float64) * np.sqrt(0.25 + s**2)
    data = 0.5
    c_skip = data**2 / (s**2 + data**2)
    c_out = s * data / np.sqrt(s**2 + data**2)
    c_in = 1 / np.sqrt(s**2 + data**2)
    truth = c_skip * x + c_out * np.tanh(3 * c_in * x)

    logsnr_t = jnp.asarray(-2 * np.log(s).ravel(), jnp.float32)
    x_t = jnp.asarray(x / np.sqrt(1 + s**2), jnp.float32)  # alpha x, variance preserving
    network = predict.precondition(lambda inputs, _: jnp.tanh(3 * inputs))
    np.testing.assert_allclose(
        predict.as_denoiser(network, "edm")(x_t, logsnr_t), truth, rtol=2e-5, atol=2e-6
    )


def test_edm_for_data_of_unit_deviation_is_minus_v(monkeypatch):
    x_0, eps, logsnr_t = images(0), images(1), jnp.array([-9.0, -1.0, 0.5, 9.0])
    monkeypatch.setattr(predict, "SIGMA_DATA", 1.0)
    np.testing.assert_allclose(
        predict.target(x_0, eps, logsnr_t, "edm"),
        -predict.target(x_0, eps, logsnr_t, "v"),
        atol=1e-6,
    )


def test_edms_network_sees_and_says_unit_variance_for_data_of_its_deviation():
    x_0, eps = 0.5 * images(0, (7, 64, 64, 3)), images(1, (7, 64, 64, 3))
    logsnr_t = jnp.linspace(-15.0, 15.0, 7)
    inputs = predict.precondition(lambda x, _: x)(diffuse(x_0, eps, logsnr_t), logsnr_t)
    np.testing.assert_allclose(inputs.std(axis=(1, 2, 3)), 1.0, rtol=0.03)
    said = predict.target(x_0, eps, logsnr_t, "edm")
    np.testing.assert_allclose(said.std(axis=(1, 2, 3)), 1.0, rtol=0.03)


@pytest.mark.parametrize("kind", ["x_0", "v", "flow", "edm"])
def test_pure_noise_still_gives_an_image_but_to_those_who_predict_noise(kind):
    """At logsnr = -inf; eps and score say nothing of x_0 there: theirs is infinite."""
    x_0, eps, logsnr_t = images(0), images(1), jnp.full((4,), -jnp.inf)
    output = predict.target(x_0, eps, logsnr_t, kind)
    x_t = diffuse(x_0, eps, logsnr_t)
    np.testing.assert_allclose(predict.to_x_0(output, x_t, logsnr_t, kind), x_0, atol=1e-6)


@pytest.mark.parametrize("kind", ["eps", "v", "flow", "edm"])
def test_a_clean_image_still_gives_the_noise_but_to_those_who_predict_the_image(kind):
    """At logsnr = +inf; x_0 says nothing of eps there, and the score is infinite."""
    x_0, eps, logsnr_t = images(0), images(1), jnp.full((4,), jnp.inf)
    output = predict.target(x_0, eps, logsnr_t, kind)
    x_t = diffuse(x_0, eps, logsnr_t)
    np.testing.assert_allclose(predict.to_eps(output, x_t, logsnr_t, kind), eps, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_the_level_are_finite_at_both_ends(kind):
    x_t, output = images(0), images(1)
    slope = jax.jacfwd(lambda level: predict.to_x_0(output, x_t, jnp.full((4,), level), kind))
    assert np.all(np.isfinite([slope(-20.0), slope(20.0)]))


@settings(max_examples=50, deadline=None)
@given(logsnr=LOGSNR)
def test_log_weight_turns_an_error_in_x_0_into_one_in_the_kind(logsnr):
    """At fixed x_t an error e in x_0 is an error -alpha/sigma e in eps, and so in every kind."""
    alpha, sigma = alpha_sigma64(logsnr)
    for kind in KINDS:
        a, b = parts64(kind, logsnr)
        truth = 2 * np.log(abs(a - b * alpha / sigma))
        got = float(predict.log_weight(kind, jnp.array([logsnr], jnp.float32))[0])
        assert got == pytest.approx(truth, abs=4e-6 * (1 + abs(logsnr)) / 4), kind


def test_a_network_with_a_variance_gives_both_the_image_and_how_far_to_the_large_one():
    x_t, logsnr_t = images(0), jnp.zeros(4)
    output, variance = images(1), jnp.linspace(-1, 1, 4).reshape(4, 1, 1, 1) + 0 * images(1)
    network = lambda x, s: jnp.concatenate([output, variance], axis=-1)  # noqa: E731
    guess = predict.as_denoiser_with_variance(network, "v")(x_t, logsnr_t)
    np.testing.assert_allclose(guess.x_0, predict.to_x_0(output, x_t, logsnr_t, "v"))
    np.testing.assert_allclose(guess.fraction[:, 0, 0, 0], [0, 1 / 3, 2 / 3, 1], atol=1e-6)


def test_a_guess_keeps_its_variance_when_its_image_is_replaced():
    x_0, other, fraction = images(0), images(1), images(2)
    changed = predict.with_x_0(Guess(x_0, fraction), other)
    np.testing.assert_array_equal(changed.fraction, fraction)
    np.testing.assert_array_equal(predict.x_0_of(changed), other)
    np.testing.assert_array_equal(predict.with_x_0(x_0, other), other)


@pytest.mark.parametrize("make", [predict.as_denoiser, predict.as_denoiser_with_variance])
def test_an_unknown_kind_is_named_with_those_allowed(make):
    with pytest.raises(ValueError, match=r"'epsilon'.*eps, v, x_0, score, flow, edm"):
        make(lambda x, _: x, "epsilon")
