import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffjax.diffusion.process import alpha_sigma, diffuse, posterior, renoise
from tests.diffusion.helpers import images

levels = st.floats(-20, 20, width=32)
renoise_jit = jax.jit(renoise)


@settings(max_examples=50, deadline=None)
@given(levels)
def test_alpha_and_sigma_equal_float64_to_the_last_digits(logsnr):
    alpha, sigma = alpha_sigma(jnp.full((1,), logsnr))
    np.testing.assert_allclose(alpha.item(), (1 + np.exp(-np.float64(logsnr))) ** -0.5, rtol=5e-6)
    np.testing.assert_allclose(sigma.item(), (1 + np.exp(np.float64(logsnr))) ** -0.5, rtol=5e-6)
    assert alpha.shape == (1, 1, 1, 1)


def test_each_image_is_noised_to_its_own_level_even_when_batch_equals_width():
    x_0, eps = images(0, (6, 6, 6, 6)), images(1, (6, 6, 6, 6))
    logsnr = jnp.linspace(-5, 5, 6)
    together = diffuse(x_0, eps, logsnr)
    alone = [diffuse(x_0[i : i + 1], eps[i : i + 1], logsnr[i : i + 1])[0] for i in range(6)]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(levels, levels)
def test_posterior_is_the_gaussian_product_of_prior_and_likelihood(one, other):
    """q(x_s | x_t, x_0) from the two-Gaussian formula in float64."""
    logsnr_t, logsnr_s = np.float64(min(one, other)), np.float64(max(one, other))
    if logsnr_s - logsnr_t < 1e-2:
        return
    a_t, s_t = (1 + np.exp(-logsnr_t)) ** -0.5, (1 + np.exp(logsnr_t)) ** -0.5
    a_s, s_s = (1 + np.exp(-logsnr_s)) ** -0.5, (1 + np.exp(logsnr_s)) ** -0.5
    a_ts = a_t / a_s
    s_ts2 = s_t**2 - a_ts**2 * s_s**2
    x_0, x_t = 0.7, -1.3
    variance = 1 / (1 / s_s**2 + a_ts**2 / s_ts2)
    mean = variance * (a_s * x_0 / s_s**2 + a_ts * x_t / s_ts2)
    full = lambda value: jnp.full((1, 1, 1, 1), value)  # noqa: E731
    mean_hat, variance_hat = posterior(
        full(x_0), full(x_t), jnp.full((1,), logsnr_s), jnp.full((1,), logsnr_t)
    )
    np.testing.assert_allclose(mean_hat.item(), mean, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(variance_hat.item(), variance, rtol=1e-3)


def test_posterior_at_the_clean_rung_is_x_0_without_noise():
    x_0, x_t = images(0), images(1)
    mean, variance = posterior(x_0, x_t, jnp.full((4,), jnp.inf), jnp.full((4,), -20.0))
    np.testing.assert_array_equal(mean, x_0)
    np.testing.assert_array_equal(variance, 0.0)


def renoise_parts(logsnr_s, logsnr_t):
    """What multiplies x_s and eps, read off with ones and zeros."""
    one, zero = jnp.ones((1, 1, 1, 1)), jnp.zeros((1, 1, 1, 1))
    logsnrs = jnp.full((1,), logsnr_s), jnp.full((1,), logsnr_t)
    return renoise_jit(one, zero, *logsnrs).item(), renoise_jit(zero, one, *logsnrs).item()


@settings(max_examples=50, deadline=None)
@given(levels, levels)
def test_renoising_what_was_noised_is_noising_once(one, other):
    """q(x_t | x_s) after q(x_s | x_0) is q(x_t | x_0): mean and variance, in float64."""
    logsnr_t, logsnr_s = np.float64(min(one, other)), np.float64(max(one, other))
    ratio, fresh = renoise_parts(logsnr_s, logsnr_t)
    alpha2 = lambda logsnr: 1 / (1 + np.exp(-logsnr))  # noqa: E731
    sigma2 = lambda logsnr: 1 / (1 + np.exp(logsnr))  # noqa: E731
    assert ratio * alpha2(logsnr_s) ** 0.5 == pytest.approx(alpha2(logsnr_t) ** 0.5, rel=5e-6)
    assert ratio**2 * sigma2(logsnr_s) + fresh**2 == pytest.approx(sigma2(logsnr_t), rel=1e-5)


@pytest.mark.parametrize("logsnr", [-19.0, -1.0, 6.0, 18.0])
def test_renoising_by_a_little_keeps_the_digits_of_the_little_noise(logsnr):
    """sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2 in float64; in float32 it would cancel."""
    logsnr_t, logsnr_s = np.float64(logsnr), np.float64(logsnr) + 2.0**-12
    sigma2 = lambda level: 1 / (1 + np.exp(level))  # noqa: E731
    ratio2 = (1 + np.exp(-logsnr_s)) / (1 + np.exp(-logsnr_t))
    wanted = np.sqrt(sigma2(logsnr_t) - ratio2 * sigma2(logsnr_s))
    _, fresh = renoise_parts(logsnr_s, logsnr_t)
    assert fresh == pytest.approx(wanted, rel=1e-5)


def test_renoised_samples_have_the_statistics_of_q_x_t_given_x_0():
    """With the deviation (sigma_t alpha_s - sigma_s alpha_t) / alpha_s they would not."""
    x_0 = jnp.full((4096, 1, 1, 8), 0.6)
    logsnr_s, logsnr_t = jnp.full((4096,), 1.0), jnp.full((4096,), 0.5)
    x_s = diffuse(x_0, images(1, x_0.shape), logsnr_s)
    x_t = renoise_jit(x_s, images(2, x_0.shape), logsnr_s, logsnr_t)
    alpha_t, sigma_t = (part[0].item() for part in alpha_sigma(logsnr_t))
    # 32,768 draws: standard errors 0.0034 and 0.8 % of the variance; the wrong one loses a third
    assert float(x_t.mean()) == pytest.approx(0.6 * alpha_t, abs=0.014)
    assert float(x_t.var()) == pytest.approx(sigma_t**2, rel=0.03)


def test_renoising_a_clean_image_is_diffusing_it_and_no_step_changes_nothing():
    x_0, eps = images(0), images(1)
    logsnr_t = jnp.linspace(-20.0, 20.0, 4)
    clean = jnp.full((4,), jnp.inf)
    np.testing.assert_allclose(
        renoise_jit(x_0, eps, clean, logsnr_t), diffuse(x_0, eps, logsnr_t), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(renoise_jit(x_0, eps, logsnr_t, logsnr_t), x_0)


def test_a_vector_of_the_wrong_length_is_refused():
    with pytest.raises(Exception, match=r"(?i)type-check|shape|parameter"):
        diffuse(images(0), images(1), jnp.zeros(3))
