import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_ndtr

from diffjax.diffusion.likelihood import gaussian

LEVELS = np.arange(256) / 127.5 - 1.0


def test_kl_equals_the_integral_of_q_log_q_over_p():
    mean_q, var_q, mean_p, var_p = 0.3, 0.4, -0.5, 1.7
    x = np.linspace(-12.0, 12.0, 200_001)
    log_q = -0.5 * ((x - mean_q) ** 2 / var_q + np.log(2 * np.pi * var_q))
    log_p = -0.5 * ((x - mean_p) ** 2 / var_p + np.log(2 * np.pi * var_p))
    wanted = np.trapezoid(np.exp(log_q) * (log_q - log_p), x)
    got = gaussian.gaussian_kl(mean_q, np.log(var_q), mean_p, np.log(var_p))
    assert float(got) == pytest.approx(wanted, rel=1e-6)


def test_kl_of_a_distribution_to_itself_is_exactly_zero():
    assert float(gaussian.gaussian_kl(0.7, -3.1, 0.7, -3.1)) == 0.0


@pytest.mark.parametrize("logsnr", [-20.0, -10.0, -2.0, 3.0])
def test_prior_is_the_kl_of_the_last_rung_to_white_noise(logsnr):
    x_0 = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    alpha_sq, var = 1 / (1 + np.exp(-logsnr)), 1 / (1 + np.exp(logsnr))
    wanted = 0.5 * (alpha_sq * (np.float64(x_0) ** 2 - 1) - np.log(var))
    if logsnr == -20.0:  # float64 cancels too: the limit is alpha^2 x_0^2 / 2
        wanted = 0.5 * alpha_sq * np.float64(x_0) ** 2
    got = gaussian.prior_kl(x_0, jnp.full((2,), logsnr))
    np.testing.assert_allclose(got, wanted, rtol=3e-5, atol=1e-6 * alpha_sq)


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.123, 0.999, 40.0])
@pytest.mark.parametrize("std", [1e-4, 2e-3, 0.01, 0.3, 20.0])
def test_the_mass_of_the_256_levels_is_one_to_3e_6(mean, std):
    log_mass = gaussian.discretised_log_likelihood(jnp.float32(LEVELS), mean, 2 * np.log(std))
    assert np.all(np.isfinite(log_mass))
    assert float(jnp.exp(jax.nn.logsumexp(log_mass))) == pytest.approx(1.0, abs=3e-6)


@pytest.mark.parametrize("std", [1e-3, 3.0**-5, 0.05, 1.0, 30.0])
@pytest.mark.parametrize("mean", [-1.5, 0.0, 0.2, 7.0])
def test_each_level_has_the_normals_mass_between_its_edges(mean, std):
    """Against float64 differences of log Phi, taken in the tail where Phi keeps its digits."""
    a, b = (LEVELS - 1 / 255 - mean) / std, (LEVELS + 1 / 255 - mean) / std
    a, b = np.where(a + b > 0, -b, a), np.where(a + b > 0, -a, b)
    wanted = log_ndtr(b) + np.log(-np.expm1(log_ndtr(a) - log_ndtr(b)))
    wanted[0] = log_ndtr((-1 + 1 / 255 - mean) / std)
    wanted[-1] = log_ndtr(-(1 - 1 / 255 - mean) / std)
    with jax.enable_x64(True):
        got = gaussian.discretised_log_likelihood(jnp.asarray(LEVELS), mean, 2 * np.log(std))
    np.testing.assert_allclose(got, wanted, rtol=1e-8, atol=1e-8)
    single = gaussian.discretised_log_likelihood(jnp.float32(LEVELS), mean, 2 * np.log(std))
    # the float32 bin edges themselves are off by 1e-7 / std of a deviation
    np.testing.assert_allclose(
        single, wanted, rtol=3e-6, atol=2e-7 * np.max(np.abs(a)) / std + 2e-6
    )


@pytest.mark.parametrize("log_var", [-20.0, -9.0, -2.0, 5.0])
def test_the_likelihoods_gradients_are_finite_and_those_of_finite_differences(log_var):
    with jax.enable_x64(True):
        mean, levels = jnp.linspace(-4.0, 4.0, 256), jnp.asarray(np.roll(LEVELS, 3))
        total = lambda m, lv: gaussian.discretised_log_likelihood(levels, m, lv).sum()  # noqa: E731
        d_mean, d_log_var = jax.grad(total, argnums=(0, 1))(mean, log_var)
        each = lambda m, lv: gaussian.discretised_log_likelihood(levels, m, lv)  # noqa: E731
        step = 1e-6
        np.testing.assert_allclose(
            d_mean,
            (each(mean + step, log_var) - each(mean - step, log_var)) / (2 * step),
            rtol=1e-4,
            atol=1e-6 * float(jnp.abs(d_mean).max()),
        )
        wanted = (total(mean, log_var + step) - total(mean, log_var - step)) / (2 * step)
        assert float(d_log_var) == pytest.approx(float(wanted), rel=1e-5)
    far = jax.grad(lambda m: gaussian.discretised_log_likelihood(jnp.zeros(()), m, -20.0))(9.0)
    assert np.isfinite(far)


def test_a_density_times_the_bins_width_is_the_mass_of_a_narrow_bin():
    x, mean, log_var = jnp.float32(LEVELS[1:-1]), 0.1, 2 * np.log(3.0)
    density = gaussian.gaussian_log_likelihood(x, mean, log_var)
    mass = gaussian.discretised_log_likelihood(x, mean, log_var)
    np.testing.assert_allclose(mass, density + np.log(2 / 255), atol=1e-5)
