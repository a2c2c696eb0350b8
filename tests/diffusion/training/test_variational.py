import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core.types import Guess
from diffjax.diffusion import predict, schedule, table
from diffjax.diffusion.likelihood.bound import vlb
from diffjax.diffusion.training import loss, times, variational
from tests.diffusion.helpers import constant_denoiser, images

KEY = jax.random.key(17)
SHAPE = (2, 2, 2, 3)
BETAS = np.linspace(1e-4, 0.02, 1000)  # Ho et al. 2020
ALPHA_BAR = np.cumprod(1 - BETAS)
DDPM = jnp.asarray(np.append(table.logsnr_table(BETAS)[::-1], np.inf), jnp.float32)
SHORT = jnp.append(jnp.linspace(-8.0, 8.0, 12), jnp.inf)


def eight_bit(shape, seed=0):
    levels = jax.random.randint(jax.random.key(seed), shape, 0, 256)
    return levels / 127.5 - 1


def variances64(t):
    """beta~_t with the first taking the second's value, and beta_t, in DDPM's own terms."""
    at = max(t, 1)
    small = BETAS[at] * (1 - ALPHA_BAR[at - 1]) / (1 - ALPHA_BAR[at])
    return small, BETAS[t]


def every_rung_once(key, num):
    """As many times as rungs: the mean over them is the bound's own sum."""
    return times.Times((jnp.arange(num) + 0.5) / num, jnp.ones(num))


def term(guess, x_0, t, **options):
    """The term of DDPM's step t, 0 for the decoder's."""
    rung = jnp.full(x_0.shape[:1], 999 - t)
    return variational.vlb_term(guess, x_0, DDPM, rung, **options)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("t", [1, 2, 10, 300, 999])
def test_a_term_is_ddpms_divergence_of_two_gaussians(t, fraction):
    """KL(N(mu~, beta~) || N(mu_hat, small^(1 - f) large^f)), Ho et al. 2020, eq. 7 and 8."""
    x_0, x_0_hat = images(0, SHAPE), images(1, SHAPE)
    before, here = ALPHA_BAR[t - 1], ALPHA_BAR[t]
    small, large = variances64(t)
    chosen = small ** (1 - fraction) * large**fraction
    apart = np.sqrt(before) * BETAS[t] / (1 - here) * np.asarray(x_0 - x_0_hat, np.float64)
    truth = 0.5 * (np.log(chosen / small) + small / chosen - 1 + apart**2 / chosen)
    for guess in (x_0_hat, Guess(x_0_hat, jnp.full(SHAPE, fraction))):
        got = term(guess, x_0, t, gamma=fraction)
        np.testing.assert_allclose(got, truth, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_at_index_zero_the_small_variance_is_that_of_index_one(fraction):
    """Not the log of 0, nor of a clamp; so the decoder's term is finite, with its gradient."""
    x_0, x_0_hat = images(0, SHAPE), images(0, SHAPE) + 0.01 * images(1, SHAPE)
    small, large = variances64(0)
    chosen = small ** (1 - fraction) * large**fraction
    square = np.asarray(x_0 - x_0_hat, np.float64) ** 2
    truth = 0.5 * (square / chosen + np.log(2 * np.pi * chosen))
    got = term(x_0_hat, x_0, 0, gamma=fraction, eight_bit=False)
    np.testing.assert_allclose(got, truth, rtol=2e-3, atol=5e-3)

    def learned(fraction, eight_bit):
        guess = Guess(x_0_hat, jnp.full(SHAPE, fraction))
        return jnp.sum(term(guess, x_0, 0, eight_bit=eight_bit))

    # d/df of 1/2 (e^2 / v + log v), with d log v / df = log(large / small)
    wanted = 0.5 * np.log(large / small) * np.sum(1 - square / chosen)
    assert float(jax.grad(learned)(fraction, False)) == pytest.approx(wanted, rel=2e-3)
    assert np.isfinite(jax.grad(learned)(fraction, True))


def test_the_decoders_256_probabilities_sum_to_one_whatever_the_variance():
    x_0 = jnp.broadcast_to((jnp.arange(256) / 127.5 - 1)[:, None, None, None], (256, 1, 1, 3))
    for fraction in (0.0, 0.5, 1.0):
        guess = Guess(jnp.full_like(x_0, 0.3337), jnp.full_like(x_0, fraction))
        total = np.exp(-np.asarray(term(guess, x_0, 0), np.float64)).sum(axis=0)
        np.testing.assert_allclose(total, 1.0, atol=1e-4)


def test_the_loss_over_every_rung_is_the_likelihoods_bound():
    x_0 = jnp.tile(eight_bit((1, 4, 4, 3)), (12, 1, 1, 1))
    for gamma in (0.0, 1.0):
        denoise = constant_denoiser(0.7 * x_0[:1])
        options = dict(logsnrs=SHORT, key=KEY, gamma=gamma)
        estimate = functools.partial(variational.vlb_loss, times=every_rung_once, **options)
        exact = functools.partial(vlb, decoder_gamma=gamma, **options)
        value, aux = jax.jit(estimate, static_argnums=0)(denoise, x_0)
        bound = jax.jit(exact, static_argnums=0)(denoise, x_0[:1])
        assert float(value) == pytest.approx(float((bound.diffusion + bound.decoder)[0]), rel=1e-5)
        np.testing.assert_allclose(aux.logsnr_t, SHORT[:-1][::-1])


def test_the_bound_with_a_learned_variance_does_not_depend_on_what_the_network_predicts():
    x_0 = eight_bit((64, 2, 2, 3))
    values = []
    for kind in predict.KINDS:

        def network(x_t, logsnr_t, kind=kind):
            said = predict.convert(0.8 * x_0, x_t, logsnr_t, "x_0", kind)
            return jnp.concatenate([said, jnp.tanh(x_t)], axis=-1)

        denoise = predict.as_denoiser_with_variance(network, kind)
        values.append(variational.vlb_loss(denoise, x_0, key=KEY, logsnrs=SHORT)[0])
    np.testing.assert_allclose(values, values[0], rtol=1e-4)


def test_the_bound_is_least_at_the_exact_variance_of_the_step():
    """Var[x_s | x_t] = small + (mean's slope in x_0)^2 Var[x_0 | x_t]; data N(0, c)."""
    c, logsnrs = 0.3, jnp.array([-3.0, -1.0, 0.5, 2.0, jnp.inf])
    for rung in range(3):
        t, s = float(logsnrs[rung]), float(logsnrs[rung + 1])
        spread = c / (1 + c * np.exp(t))  # Var[x_0 | x_t]
        move, var_s, var_t = -np.expm1(t - s), 1 / (1 + np.exp(s)), 1 / (1 + np.exp(t))
        gain = 1 + (move * np.sqrt(1 - var_s)) ** 2 * spread / (move * var_s)
        best = np.log(gain) / np.log(var_t / var_s)
        assert 0 < best < 1

        def expected(fraction, rung=rung, spread=spread):
            # an error whose square is its expectation
            guess = Guess(jnp.full((1, 1, 1, 1), np.sqrt(spread)), jnp.full((1, 1, 1, 1), fraction))
            x_0 = jnp.zeros((1, 1, 1, 1))
            return variational.vlb_term(guess, x_0, logsnrs, jnp.array([rung]))[0, 0, 0, 0]

        assert float(jax.jit(jax.grad(expected))(best)) == pytest.approx(0.0, abs=2e-5)
        curvature = 0.5 * np.log(var_t / var_s) ** 2
        assert float(jax.jit(jax.grad(jax.grad(expected)))(best)) == pytest.approx(
            curvature, rel=1e-3
        )
        assert float(jax.jit(expected)(best)) == pytest.approx(0.5 * np.log(gain), rel=1e-4)


def test_the_hybrids_prediction_learns_from_the_simple_loss_alone_and_its_variance_from_the_bound():
    """Nichol & Dhariwal 2021, eq. 16, by the gradient of each part on the same draws."""
    x_0 = eight_bit((16, 4, 4, 3))
    options = dict(key=KEY, logsnrs=SHORT)

    def network(params, x_t):
        return jnp.concatenate([params[0] * x_t, params[1] * x_t], axis=-1)

    def hybrid(params):
        return variational.hybrid_loss(
            lambda x, _: network(params, x), x_0, predict="v", weighting="min_snr", **options
        )[0]

    def simple(params):
        return loss.diffusion_loss(
            lambda x, _: params[0] * x,
            x_0,
            key=KEY,
            schedule=lambda u: SHORT[variational.rung_at(u, SHORT)],
            predict="v",
            weighting="min_snr",
        )[0]

    def bound(params):
        denoise = predict.as_denoiser_with_variance(lambda x, _: network(params, x), "v")
        return variational.vlb_loss(denoise, x_0, **options)[0]

    at = jnp.array([0.4, 0.2])
    value, slope = jax.jit(jax.value_and_grad(hybrid))(at)
    value_simple, slope_simple = jax.jit(jax.value_and_grad(simple))(at)
    value_bound, slope_bound = jax.jit(jax.value_and_grad(bound))(at)
    assert float(value) == pytest.approx(float(value_simple + 0.001 * value_bound), rel=1e-5)
    assert float(slope[0]) == pytest.approx(float(slope_simple[0]), rel=1e-5)
    assert float(slope[1]) == pytest.approx(0.001 * float(slope_bound[1]), rel=1e-5)
    assert abs(float(slope_bound[0])) > 0.1  # which the mean of the hybrid does not feel


def test_hybrid_and_gradient_are_finite_at_every_index_of_ddpm_and_at_zero_terminal_snr():
    zero = np.append(table.logsnr_table(table.zero_terminal_snr(BETAS))[::-1], np.inf)
    x_0 = eight_bit((1000, 1, 1, 3))
    for logsnrs in (DDPM, jnp.asarray(zero, jnp.float32)):

        @jax.jit
        @jax.value_and_grad
        def hybrid(params, logsnrs=logsnrs):
            return variational.hybrid_loss(
                lambda x, _: jnp.concatenate([params[0] * x, params[1] * x], axis=-1),
                x_0,
                key=KEY,
                logsnrs=logsnrs,
                predict="v",
                times=every_rung_once,
            )[0]

        value, slope = hybrid(jnp.array([0.4, 0.2]))
        assert np.isfinite(value)
        assert np.all(np.isfinite(slope))


C = 0.3


def off_by_what_is_unknown(x_0):
    """A denoiser of data N(0, C) whose every squared error is the best one's expectation."""

    def denoise(x_t, logsnr_t):
        spread = C / (1 + C * jnp.exp(logsnr_t))
        return x_0 + jnp.sqrt(spread)[:, None, None, None]

    return denoise


def gaussian_bits(low, high):
    """1/2 of the integral of e^l C / (1 + C e^l): 1/2 log((1 + C e^high) / (1 + C e^low))."""
    each = lambda s: 0.5 * np.logaddexp(0.0, s + np.log(C))  # noqa: E731
    return (each(high) - each(low)) / np.log(2)


@pytest.mark.parametrize("make", [schedule.cosine, schedule.uniform])
def test_the_continuous_bound_of_gaussian_data_is_its_closed_form(make):
    x_0 = jnp.zeros((65_536, 1, 1, 1))  # so many strata
    denoise = off_by_what_is_unknown(x_0)
    value, aux = variational.continuous_vlb_loss(
        lambda x_t, s: predict.convert(denoise(x_t, s), x_t, s, "x_0", "v"),
        x_0,
        key=KEY,
        schedule=make(-9.0, 9.0),
        predict="v",
        times=times.stratified,
    )
    assert float(value) == pytest.approx(gaussian_bits(-9.0, 9.0), rel=1e-3)
    assert float(jnp.mean(aux.per_example)) == pytest.approx(float(value), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_the_discrete_bound_falls_to_the_continuous_one_as_one_over_the_number_of_steps(gamma):
    gaps = []
    for num_steps in (200, 400):
        logsnrs = jnp.append(jnp.linspace(-9.0, 9.0, num_steps + 1), jnp.inf)
        x_0 = jnp.zeros((num_steps, 1, 1, 1))
        guess = off_by_what_is_unknown(x_0)(x_0, logsnrs[:-2])
        nats = variational.vlb_term(guess, x_0, logsnrs, jnp.arange(num_steps), gamma=gamma)
        bits = np.asarray(nats, np.float64).sum() / np.log(2)
        gaps.append(bits - gaussian_bits(-9.0, 9.0))
    assert 0 < gaps[1] < 0.5
    assert gaps[0] / gaps[1] == pytest.approx(2.0, rel=0.05)


def test_times_fall_on_rungs_from_clean_to_noise():
    rung = variational.rung_at(jnp.array([0.0, 0.01, 0.1, 0.95, 1.0]), SHORT)
    np.testing.assert_array_equal(rung, [11, 11, 10, 0, 0])


def test_too_short_a_ladder_and_an_unknown_kind_are_named():
    with pytest.raises(ValueError, match="2 rungs: at least 3"):
        variational.vlb_loss(
            constant_denoiser(0.0), images(0), key=KEY, logsnrs=jnp.array([0.0, jnp.inf])
        )
    with pytest.raises(ValueError, match=r"'epsilon'.*eps, v"):
        variational.hybrid_loss(
            lambda x, _: x, images(0), key=KEY, logsnrs=SHORT, predict="epsilon"
        )
