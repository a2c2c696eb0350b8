"""The oracles themselves: two ways to each number, so that what rests on them can be believed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from diffjax.diffusion.process import alpha_sigma
from tests.diffusion import oracles

SHAPE = (2, 3, 2)
ROOT = np.random.default_rng(0).normal(size=(2, 12, 12)) / 4
MIXED = oracles.mixture(
    np.random.default_rng(1).normal(size=(2, *SHAPE)),
    ROOT @ ROOT.transpose(0, 2, 1) + 0.05 * np.eye(12),
    [0.3, 0.7],
)


@pytest.mark.parametrize("logsnr", [-3.0, 0.5, 4.0])
def test_the_density_is_scipys(logsnr):
    alpha, sigma = 1 / np.sqrt(1 + np.exp(-logsnr)), 1 / np.sqrt(1 + np.exp(logsnr))
    x_t = np.random.default_rng(2).normal(size=(5, 12))
    covariances = np.einsum("kie,ke,kje->kij", MIXED.vectors, MIXED.values, MIXED.vectors)
    wanted = np.log(
        sum(
            w
            * multivariate_normal(alpha * m.ravel(), alpha**2 * c + sigma**2 * np.eye(12)).pdf(x_t)
            for w, m, c in zip(MIXED.weights, MIXED.means, covariances, strict=True)
        )
    )
    with jax.enable_x64(True):
        got = MIXED.log_density(jnp.asarray(x_t).reshape(5, *SHAPE), jnp.full((5,), logsnr))
    np.testing.assert_allclose(got, wanted, rtol=1e-9)


@pytest.mark.parametrize("logsnr", [-3.0, 0.5, 4.0])
def test_the_denoiser_is_tweedies_formula_of_the_density(logsnr):
    """E[x_0 | x_t] = (x_t + sigma^2 grad log p(x_t)) / alpha."""
    with jax.enable_x64(True):
        x_t = jax.random.normal(jax.random.key(0), (4, *SHAPE), jnp.float64)
        logsnr_t = jnp.full((4,), logsnr, jnp.float64)
        score = jax.grad(lambda x: MIXED.log_density(x, logsnr_t).sum())(x_t)
        alpha, sigma = alpha_sigma(logsnr_t)
        got = jax.jit(MIXED.denoise)(x_t, logsnr_t)
        np.testing.assert_allclose(got, (x_t + sigma**2 * score) / alpha, rtol=1e-8, atol=1e-10)


def test_the_samples_have_the_moments_and_the_weights():
    x_0 = MIXED.sample(jax.random.key(1), 100_000)
    mean, covariance = MIXED.moments()
    flat = np.asarray(x_0, np.float64).reshape(len(x_0), -1)
    np.testing.assert_allclose(flat.mean(0), mean, atol=5 * np.sqrt(covariance.max() / len(x_0)))
    np.testing.assert_allclose(np.cov(flat.T), covariance, atol=0.03)
    assert float(MIXED.mode(x_0)[:, 0].mean()) == pytest.approx(0.3, abs=0.008)


def test_a_gaussian_of_one_variance_is_a_mixture_of_one_full_covariance():
    mean = np.random.default_rng(3).normal(size=SHAPE)
    x_t = jax.random.normal(jax.random.key(2), (3, *SHAPE))
    logsnr_t = jnp.array([-1.0, 0.0, 2.0])
    one, other = (oracles.gaussian(mean, c) for c in (0.3, 0.3 * np.eye(12)))
    np.testing.assert_allclose(
        one.denoise(x_t, logsnr_t), other.denoise(x_t, logsnr_t), rtol=1e-5, atol=1e-6
    )
