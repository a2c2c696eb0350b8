import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from diffjax.core import rng
from diffjax.core.types import Guess
from diffjax.diffusion.likelihood import bound, flow
from diffjax.diffusion.process import alpha_sigma
from tests.diffusion import oracles
from tests.diffusion.helpers import SHAPES, gaussian_denoiser

KEY = jax.random.key(6)
SHAPE = (4, 4, 1)
MEAN = np.random.default_rng(0).normal(size=SHAPE) / 2
FULL = oracles.gaussian(MEAN, oracles.smooth_covariance(SHAPE))
MODES = oracles.mixture(
    np.random.default_rng(1).normal(size=(3, *SHAPE)) / 2, [0.02, 0.05, 0.1], [0.2, 0.3, 0.5]
)


def exact(data, num_steps=64):
    return jax.jit(
        lambda x: flow.log_likelihood(data.denoise, x, key=None, probe="exact", num_steps=num_steps)
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_likelihood_of_a_correlated_gaussian_is_the_closed_form_to_1e_3_bits(shape):
    """Example by example, in float32, 64 steps over logsnr -20 to 20."""
    mean = np.random.default_rng(0).normal(size=shape) / 2
    data = oracles.gaussian(mean, oracles.smooth_covariance(shape))
    x_0 = data.sample(KEY, 64)
    got = bound.to_bits(exact(data)(x_0).log_p, x_0)
    np.testing.assert_allclose(got, bound.to_bits(data.log_density(x_0), x_0), atol=1e-3)


@pytest.mark.slow
def test_likelihood_of_a_mixture_is_the_closed_form_to_1e_3_bits():
    """Three modes of deviations 0.14, 0.22 and 0.32, pictures halfway between two of them as well.

    Those lie on the ridge where paths part and need the 256 steps; for draws 64 would do.
    """
    means = jnp.asarray(MODES.means, jnp.float32)
    x_0 = jnp.concatenate([MODES.sample(KEY, 64), 0.5 * (means + jnp.roll(means, 1, 0))])
    got = bound.to_bits(exact(MODES, 256)(x_0).log_p, x_0)
    np.testing.assert_allclose(got, bound.to_bits(MODES.log_density(x_0), x_0), atol=1e-3)


def test_a_denoiser_shrunken_by_a_tenth_pays_in_likelihood():
    x_0 = FULL.sample(KEY, 64)
    wrong = lambda x_t, logsnr_t: 0.9 * FULL.denoise(x_t, logsnr_t)  # noqa: E731
    run = jax.jit(lambda x: flow.log_likelihood(wrong, x, key=None, probe="exact").log_p)
    loss = FULL.log_density(x_0) - run(x_0)
    assert float(bound.to_bits(loss, x_0).mean()) > 0.5


@pytest.mark.parametrize("logsnr_max", [20.0, 4.0])
def test_the_latent_of_a_gaussian_pixel_keeps_its_distance_in_standard_deviations(logsnr_max):
    """x_T = alpha_T m + (std_T / std_1) alpha_1 (x_0 - m), std^2 = alpha^2 C + sigma^2."""
    mean, variance = 0.4, 0.09
    x_0 = oracles.gaussian(np.full((2, 2, 1), mean), variance).sample(KEY, 8)
    got = jax.jit(
        lambda x: flow.encode(
            gaussian_denoiser(mean, variance), x, logsnr_min=-2.0, logsnr_max=logsnr_max
        )
    )(x_0)
    alpha = lambda level: 1 / np.sqrt(1 + np.exp(-level))  # noqa: E731
    std = lambda level: np.sqrt(alpha(level) ** 2 * variance + 1 / (1 + np.exp(level)))  # noqa: E731
    scale = std(-2.0) / std(logsnr_max) * alpha(logsnr_max)
    np.testing.assert_allclose(got, alpha(-2.0) * mean + scale * (x_0 - mean), atol=2e-5)


def test_the_way_back_from_the_latent_gives_the_picture():
    x_0 = MODES.sample(KEY, 16)
    back = jax.jit(
        lambda x: flow.decode(
            MODES.denoise, flow.encode(MODES.denoise, x, num_steps=128), num_steps=128
        )
    )(x_0)
    np.testing.assert_allclose(back, x_0, atol=1e-4)


def test_log_likelihoods_latent_is_that_of_encode():
    x_0 = FULL.sample(KEY, 4)
    latent = jax.jit(lambda x: flow.encode(FULL.denoise, x))(x_0)
    np.testing.assert_allclose(exact(FULL)(x_0).x_T, latent, atol=1e-6)


def test_from_a_level_with_noise_in_it_the_scale_alpha_is_counted():
    """At logsnr_max = 3: log p(alpha x_0 at that level) + d log alpha, and the same way back."""
    x_0 = FULL.sample(KEY, 8)
    level = jnp.full((8,), 3.0)
    alpha, _ = alpha_sigma(level)
    got = jax.jit(
        lambda x: flow.log_likelihood(FULL.denoise, x, key=None, probe="exact", logsnr_max=3.0)
    )(x_0)
    wanted = FULL.log_density(alpha * x_0, level) + 16 * jnp.log(alpha[:, 0, 0, 0])
    np.testing.assert_allclose(got.log_p, wanted, atol=2e-3)
    back = jax.jit(lambda x: flow.decode(FULL.denoise, x, logsnr_max=3.0))(got.x_T)
    np.testing.assert_allclose(back, x_0, atol=1e-4)


def test_the_error_falls_with_the_fourth_power_of_the_step():
    """From 24 to 48 steps by 16, within a factor 1.5; against 1,536 steps, in float64."""
    with jax.enable_x64(True):
        x_0 = FULL.sample(KEY, 8, jnp.float64)
        run = jax.jit(
            lambda x, n: flow.encode(FULL.denoise, x, num_steps=n, logsnr_min=-5.0, logsnr_max=7.0),
            static_argnums=1,
        )
        best = run(x_0, 1536)
        coarse, fine = (float(jnp.abs(run(x_0, n) - best).max()) for n in (24, 48))
    assert 16 / 1.5 < coarse / fine < 16 * 1.5


@pytest.mark.parametrize("probe", ["rademacher", pytest.param("normal", marks=pytest.mark.slow)])
def test_hutchinsons_estimate_has_the_exact_mean_and_the_variance_of_its_probes(probe):
    """One picture 4,000 times, a probe each: v' M v with M = log(C) / 2, C the covariance.

    The variance is 2 sum of M_ij^2, over i != j alone for signs; the mean lies within 4 standard
    errors of the exact one.
    """
    x_0 = FULL.sample(KEY, 1)
    wanted = float(exact(FULL, 32)(x_0).log_p[0])
    run = jax.jit(
        lambda x: flow.log_likelihood(FULL.denoise, x, key=KEY, num_steps=32, probe=probe).log_p
    )
    got = np.asarray(run(jnp.repeat(x_0, 4000, 0)), np.float64)
    assert abs(got.mean() - wanted) < 4 * got.std() / np.sqrt(len(got))
    half_log = (FULL.vectors[0] * np.log(FULL.values[0]) / 2) @ FULL.vectors[0].T
    counted = half_log - np.diag(np.diag(half_log)) if probe == "rademacher" else half_log
    assert got.var() == pytest.approx(2 * np.sum(counted**2), rel=0.15)


@pytest.mark.slow
def test_four_probes_quarter_the_variance():
    x_0 = jnp.repeat(FULL.sample(KEY, 1), 2000, 0)
    run = jax.jit(
        lambda x, num_probes: flow.log_likelihood(
            FULL.denoise, x, key=KEY, num_steps=16, num_probes=num_probes
        ).log_p.var(),
        static_argnums=1,
    )
    assert float(run(x_0, 1) / run(x_0, 4)) == pytest.approx(4.0, rel=0.2)


def test_one_rademacher_probe_is_exact_where_pixels_are_independent():
    data = oracles.gaussian(MEAN, 0.3)
    x_0 = data.sample(KEY, 4)
    run = jax.jit(lambda x: flow.log_likelihood(data.denoise, x, key=KEY, probe="rademacher").log_p)
    np.testing.assert_allclose(run(x_0), exact(data)(x_0).log_p, rtol=1e-5)


def test_eight_bit_pictures_cost_the_mass_of_their_bins_to_1e_3_bits():
    """A wide Gaussian: the scale 127.5 turns its density into the mass between a bin's edges."""
    mean, variance = 0.1, 0.05
    data = oracles.gaussian(np.full((8, 8, 3), mean), variance)
    level = jnp.round((data.sample(KEY, 64) + 1) * 127.5)
    x_0 = level / 127.5 - 1
    denoise = gaussian_denoiser(mean, variance)
    run = jax.jit(lambda x: flow.dequantised_nats(denoise, x, key=KEY))
    got = float(bound.to_bits(run(x_0), x_0).mean())
    at = lambda edge: norm.cdf((np.float64(level) + edge) / 127.5 - 1, mean, variance**0.5)  # noqa: E731
    assert got == pytest.approx(float(-np.log2(at(0.5) - at(-0.5)).mean()), abs=1e-3)


def test_dequantising_a_density_narrower_than_a_bin_costs_jensens_gap():
    """Deviation of a quarter bin: 0.288 bits by the density, where the bin's mass costs 0.067."""
    mean, std = 100 / 127.5 - 1, 0.5 / 255
    x_0 = jnp.full((64, 8, 8, 1), mean)
    denoise = gaussian_denoiser(mean, std**2)
    run = jax.jit(lambda x: flow.dequantised_nats(denoise, x, key=KEY))
    got = float(bound.to_bits(run(x_0), x_0).mean())
    # E of (2 (2 u - 1))^2 / 2 is 2/3; the standard error of 4,096 such numbers is 0.013 bits
    assert got == pytest.approx((2 / 3 + np.log(np.sqrt(2 * np.pi) / 4)) / np.log(2), abs=0.05)
    assert got > -np.log2(norm.cdf(2.0) - norm.cdf(-2.0)) + 0.15


def test_a_denoiser_with_a_variance_says_the_same():
    x_0 = FULL.sample(KEY, 2)
    both = lambda x_t, logsnr_t: Guess(FULL.denoise(x_t, logsnr_t), jnp.zeros_like(x_t))  # noqa: E731
    run = jax.jit(lambda x: flow.encode(both, x, num_steps=8))
    np.testing.assert_array_equal(
        run(x_0), jax.jit(lambda x: flow.encode(FULL.denoise, x, num_steps=8))(x_0)
    )


def test_an_examples_bits_depend_on_its_own_key_and_not_on_the_batch():
    keys = rng.per_example(jnp.array([4, 5, 6]))
    x_0 = FULL.sample(KEY, 3)
    run = jax.jit(lambda x, key: flow.dequantised_nats(FULL.denoise, x, key=key, num_steps=8))
    together = run(x_0, keys)
    np.testing.assert_allclose(together[1:2], run(x_0[1:2], keys[1:2]), rtol=1e-5)
    assert not np.allclose(together, run(x_0, jnp.roll(keys, 1)), rtol=1e-5)


def test_bad_arguments_are_named():
    x_0 = jnp.zeros((1, *SHAPE))
    run = lambda **options: flow.log_likelihood(FULL.denoise, x_0, key=KEY, **options)  # noqa: E731
    with pytest.raises(ValueError, match="probe='sign': allowed are rademacher, normal, exact"):
        run(probe="sign")
    with pytest.raises(ValueError, match="num_probes=0: at least 1"):
        run(num_probes=0)
    with pytest.raises(ValueError, match="num_steps=0: at least 1"):
        run(num_steps=0)
    with pytest.raises(ValueError, match=r"logsnr_min=3.0: below logsnr_max=2.0"):
        run(logsnr_min=3.0, logsnr_max=2.0)
    with pytest.raises(ValueError, match="key=None"):
        flow.log_likelihood(FULL.denoise, x_0, key=None)
