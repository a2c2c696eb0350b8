"""Bounds against closed forms. Gaussian data make them quadratic in the noise: see `cubature`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from diffjax.core import rng
from diffjax.core.types import Guess
from diffjax.diffusion.likelihood.bound import to_bits, to_nats, vlb, vlb_continuous
from tests.diffusion import oracles
from tests.diffusion.helpers import SHAPES, gaussian_denoiser

KEY = jax.random.key(5)
SHAPE = (4, 4, 1)
MEAN = np.random.default_rng(0).normal(size=SHAPE) / 2
FULL = oracles.gaussian(MEAN, oracles.smooth_covariance(SHAPE))
BITS = 1 / np.log(2)


def ladder(num, logsnr_min=-13.0, logsnr_max=13.0):
    """`num` rungs uniform in logsnr, then the clean image."""
    return jnp.append(jnp.linspace(logsnr_min, logsnr_max, num), jnp.inf)


def copies(data, num=3):
    """`num` draws, each 2d times over, and their exact bits per dimension."""
    x_0 = data.sample(jax.random.key(1), num, jnp.result_type(float))
    bits = -data.log_density(x_0) / np.prod(data.shape) * BITS
    return jnp.repeat(x_0, 2 * np.prod(data.shape), axis=0), bits


def per_picture(values, num=3):
    return np.asarray(values).reshape(num, -1).mean(1)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_continuous_bound_is_the_likelihood_of_a_correlated_gaussian_to_1e_3_bits(
    monkeypatch, shape
):
    """-log p(x_0) of each of three examples, not of their mean alone; 1,024 levels over 40."""
    oracles.cubature(monkeypatch)
    data = oracles.gaussian(
        np.random.default_rng(0).normal(size=shape) / 2, oracles.smooth_covariance(shape)
    )
    with jax.enable_x64(True):
        x_0, wanted = copies(data)
        run = lambda x: vlb_continuous(  # noqa: E731
            data.denoise, x, key=KEY, num_times=1024, eight_bit=False
        )
        got = per_picture(jax.jit(run)(x_0).total)
    np.testing.assert_allclose(got, wanted, atol=1e-3)


@pytest.mark.parametrize(
    "value", [pytest.param(191, marks=pytest.mark.slow), pytest.param(64, marks=pytest.mark.slow)]
)
def test_continuous_bound_of_two_levels_is_the_bits_of_their_odds_to_1e_3(monkeypatch, value):
    """Levels 64 and 191 with odds 0.3 and 0.7 cost 1.737 and 0.515 bits: no gap is left."""
    oracles.quantiles(monkeypatch)
    levels = np.array([64, 191]).reshape(2, 1, 1, 1) / 127.5 - 1
    data = oracles.mixture(levels, 1e-12, [0.3, 0.7])
    with jax.enable_x64(True):
        x_0 = jnp.full((20_000, 1, 1, 1), value / 127.5 - 1)
        run = lambda x: vlb_continuous(  # noqa: E731
            data.denoise, x, key=KEY, logsnr_min=-13.0, logsnr_max=17.0, num_times=256
        )
        bound = jax.jit(run)(x_0)
        total, decoder = float(bound.total.mean()), float(bound.decoder.mean())
    assert total == pytest.approx(-np.log2({64: 0.3, 191: 0.7}[value]), abs=1e-3)
    assert decoder == pytest.approx(0.0, abs=1e-6)


def exact_variance(mean, variance, logsnrs):
    """The denoiser of independent Gaussian pixels that knows the variance of x_s given x_t."""
    l_t, l_s = logsnrs[:-2], logsnrs[1:-1]
    sigmoid = jax.nn.sigmoid
    left = variance * sigmoid(-logsnrs) / (sigmoid(logsnrs) * variance + sigmoid(-logsnrs))
    move = -jnp.expm1(l_t - l_s)
    small = move * sigmoid(-l_s)
    true = small + sigmoid(l_s) * move**2 * left[:-2]
    large = move * sigmoid(-l_t)
    # the last step, to the clean image, borrows the small variance of the step before
    small, true, large = (
        jnp.append(table, last)
        for table, last in ((small, small[-1]), (true, left[-2]), (large, sigmoid(-logsnrs[-2])))
    )
    fraction = jnp.log(true / small) / jnp.log(large / small)
    denoise = gaussian_denoiser(mean, variance)

    def guess(x_t, logsnr_t):
        rung = jnp.argmin(jnp.abs(logsnrs[:-1] - logsnr_t[:, None]), axis=1)
        full = jnp.broadcast_to(fraction[rung][:, None, None, None], x_t.shape)
        return Guess(denoise(x_t, logsnr_t), full)

    return guess


@pytest.mark.parametrize("num", [2, 5, 40])
def test_with_the_exact_variance_a_ladder_of_any_length_has_no_gap(monkeypatch, num):
    """A learned variance that is right gives -log p(x_0) to 1e-5 bits, with two noisy rungs too."""
    oracles.cubature(monkeypatch)
    data = oracles.gaussian(MEAN, 0.3)
    with jax.enable_x64(True):
        x_0, wanted = copies(data)
        # 2e-6 of the signal is left at -13, and the noise hides 3e-6 of the variance at 13
        denoise = exact_variance(jnp.asarray(MEAN), 0.3, ladder(num))
        run = lambda x: vlb(denoise, x, logsnrs=ladder(num), key=KEY, eight_bit=False)  # noqa: E731
        got = per_picture(jax.jit(run)(x_0).total)
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def ddpm_parts(x_0, mean, variance, betas, large):
    """The three parts for independent Gaussian pixels, from betas alone (Ho et al. 2020, eq. 5).

    The expectation over x_t is taken in closed form. Nats per pixel, float64 NumPy.
    """
    bar = np.cumprod(1 - betas)

    def square_error(t):
        """E (x_0 - x_0_hat(x_t))^2: a share of x_0's distance to the mean, and of the noise."""
        total = bar[t] * variance + 1 - bar[t]
        bias = (1 - bar[t]) / total * (x_0 - mean)
        return bias**2 + bar[t] * variance**2 * (1 - bar[t]) / total**2

    prior = 0.5 * (bar[-1] * x_0**2 - bar[-1] - np.log(1 - bar[-1]))
    diffusion = 0.0
    for t in range(1, len(betas)):
        small = (1 - bar[t - 1]) / (1 - bar[t]) * betas[t]
        chosen = betas[t] if large else small
        slope = np.sqrt(bar[t - 1]) * betas[t] / (1 - bar[t])
        ratio = small / chosen
        distance = slope**2 * square_error(t) / chosen
        diffusion = diffusion + 0.5 * (ratio - 1 - np.log(ratio) + distance)
    chosen = betas[0] if large else (1 - bar[0]) / (1 - bar[1]) * betas[1]
    decoder = 0.5 * (square_error(0) / chosen + np.log(2 * np.pi * chosen))
    return prior, diffusion, decoder


@pytest.mark.parametrize("gamma", [0, 1])
def test_each_part_is_that_of_ddpms_chain_of_betas(monkeypatch, gamma):
    """The posterior's variance and beta_t, and what each leaves to the decoder."""
    oracles.cubature(monkeypatch)
    betas = np.linspace(0.01, 0.3, 12)
    bar = np.cumprod(1 - betas)
    logsnrs = np.append(np.log(bar / (1 - bar))[::-1], np.inf)
    with jax.enable_x64(True):
        x_0, _ = copies(oracles.gaussian(MEAN, 0.3))
        denoise = gaussian_denoiser(jnp.asarray(MEAN), 0.3)
        run = lambda x: vlb(  # noqa: E731
            denoise, x, logsnrs=jnp.asarray(logsnrs), key=KEY, gamma=gamma, eight_bit=False
        )
        bound = jax.jit(run)(x_0)
        pictures = np.asarray(x_0[:: 2 * x_0[0].size])
    for name, wanted in zip(
        bound._fields, ddpm_parts(pictures, MEAN, 0.3, betas, gamma), strict=True
    ):
        got = per_picture(getattr(bound, name))
        np.testing.assert_allclose(got, wanted.mean((1, 2, 3)) * BITS, rtol=1e-6, err_msg=name)


def test_each_part_of_the_continuous_bound_is_its_integral(monkeypatch):
    """prior 1/2 (alpha^2 (x^2 - 1) - log sigma^2), diffusion 1/2 int e^l E|error|^2 dl, decoder."""
    oracles.cubature(monkeypatch)
    variance, low, high = 0.3, -3.0, 5.0
    with jax.enable_x64(True):
        x_0, _ = copies(oracles.gaussian(MEAN, variance))
        run = lambda x: vlb_continuous(  # noqa: E731
            gaussian_denoiser(jnp.asarray(MEAN), variance),
            x,
            logsnr_min=low,
            logsnr_max=high,
            key=KEY,
            num_times=512,
            eight_bit=False,
        )
        bound = jax.jit(run)(x_0)
        x = np.asarray(x_0[:: 2 * x_0[0].size])[..., None]

    def square_error(level):
        alpha_sq, sigma_sq = 1 / (1 + np.exp(-level)), 1 / (1 + np.exp(level))
        total = alpha_sq * variance + sigma_sq
        bias = sigma_sq / total * (x - MEAN[..., None])
        return bias**2 + alpha_sq * variance**2 * sigma_sq / total**2

    levels = np.linspace(low, high, 20_001)
    alpha_sq, sigma_sq = 1 / (1 + np.exp(-low)), 1 / (1 + np.exp(low))
    wanted = {
        "prior": 0.5 * (alpha_sq * (x**2 - 1) - np.log(sigma_sq))[..., 0],
        "diffusion": np.trapezoid(0.5 * np.exp(levels) * square_error(levels), levels),
        "decoder": 0.5 * (np.exp(high) * square_error(high) + np.log(2 * np.pi) - high)[..., 0],
    }
    for name, nats in wanted.items():
        got = per_picture(getattr(bound, name))
        np.testing.assert_allclose(got, nats.mean((1, 2, 3)) * BITS, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_the_decoder_is_the_mean_log_mass_of_the_levels_bin(monkeypatch, gamma):
    """E -log P(x_0 | x_1) over the noise of x_1, against the normal's own distribution function."""
    oracles.quantiles(monkeypatch)
    mean, variance, x_0 = 0.3, 0.2, 140 / 127.5 - 1
    rungs = ladder(3, -5.0, 9.0)
    run = lambda x: vlb(  # noqa: E731
        gaussian_denoiser(mean, variance), x, logsnrs=rungs, key=KEY, gamma=gamma
    )
    got = jax.jit(run)(jnp.full((4096, 1, 1, 1), x_0)).decoder.mean()

    sigma_sq, before = 1 / (1 + np.exp(9.0)), 1 - np.exp(2.0 - 9.0)
    scale = np.sqrt(sigma_sq * (1.0 if gamma else before))
    eps = norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    x_1 = np.sqrt(1 - sigma_sq) * x_0 + np.sqrt(sigma_sq) * eps
    gain = np.sqrt(1 - sigma_sq) * variance / ((1 - sigma_sq) * variance + sigma_sq)
    x_0_hat = mean + gain * (x_1 - np.sqrt(1 - sigma_sq) * mean)
    mass = norm.cdf((x_0 + 1 / 255 - x_0_hat) / scale) - norm.cdf((x_0 - 1 / 255 - x_0_hat) / scale)
    assert float(got) == pytest.approx(-np.log2(mass).mean(), rel=1e-3)


@pytest.mark.slow
def test_rungs_twice_as_close_halve_the_gap(monkeypatch):
    """gamma 0 pays h R / 4, h = 26 / 1,024 and R = 13 + log 0.3; gamma 1 less than a tenth."""
    oracles.cubature(monkeypatch)
    data = oracles.gaussian(MEAN, 0.3)
    with jax.enable_x64(True):
        x_0, wanted = copies(data, 1)

        def gap(num, gamma):
            run = lambda x: vlb(  # noqa: E731
                gaussian_denoiser(jnp.asarray(MEAN), 0.3),
                x,
                logsnrs=ladder(num),
                key=KEY,
                gamma=gamma,
                decoder_gamma=1.0,
                eight_bit=False,
            )
            return float(jax.jit(run)(x_0).total.mean() - wanted[0])

        small, large = gap(1024, 0.0), gap(1024, 1.0)
        assert gap(512, 0.0) / small == pytest.approx(2.0, abs=0.15)
        assert gap(512, 1.0) / large == pytest.approx(2.0, abs=0.3)
    assert small / BITS == pytest.approx(26 / 1024 * (13 + np.log(0.3)) / 4, rel=0.25)
    assert 0 < large < small / 10


def shrunken(denoise):
    return lambda x_t, logsnr_t: 0.9 * denoise(x_t, logsnr_t)


@pytest.mark.slow
def test_a_denoiser_shrunken_by_a_tenth_is_worse():
    x_0 = FULL.sample(jax.random.key(2), 64)
    options = dict(key=KEY, eight_bit=False)
    discrete = jax.jit(
        lambda x, bad: vlb(
            shrunken(FULL.denoise) if bad else FULL.denoise, x, logsnrs=ladder(64), **options
        ).total.mean(),
        static_argnums=1,
    )
    continuous = jax.jit(
        lambda x, bad: vlb_continuous(
            shrunken(FULL.denoise) if bad else FULL.denoise,
            x,
            logsnr_min=-9.0,
            logsnr_max=9.0,
            **options,
        ).total.mean(),
        static_argnums=1,
    )
    for bound in (discrete, continuous):
        assert float(bound(x_0, True)) > float(bound(x_0, False)) + 0.5


@pytest.mark.slow
def test_with_random_noise_the_bounds_scatter_about_the_likelihood():
    """4,096 pictures in float32: the mean of bound - (-log p) within 4 of its standard errors."""
    data = oracles.gaussian(MEAN, 0.3)
    x_0 = data.sample(jax.random.key(3), 4096)
    exact = to_bits(-data.log_density(x_0), x_0)
    denoise = gaussian_denoiser(jnp.asarray(MEAN, jnp.float32), 0.3)
    learned = exact_variance(jnp.asarray(MEAN, jnp.float32), 0.3, ladder(16))
    bounds = (
        lambda x: vlb(learned, x, logsnrs=ladder(16), key=KEY, eight_bit=False),
        lambda x: vlb_continuous(
            denoise, x, key=KEY, logsnr_min=-13.0, logsnr_max=13.0, eight_bit=False
        ),
    )
    for bound in bounds:
        gap = np.asarray(jax.jit(bound)(x_0).total - exact, np.float64)
        error = gap.std() / np.sqrt(len(gap))
        assert 0 < error < 0.02
        assert abs(gap.mean()) < 4 * error


def test_an_examples_bound_depends_on_its_own_key_and_not_on_the_batch():
    keys = rng.per_example(jnp.array([4, 5, 6]))
    x_0 = FULL.sample(jax.random.key(4), 3)
    for run in (
        lambda x, key: vlb(FULL.denoise, x, logsnrs=ladder(4), key=key).total,
        lambda x, key: vlb_continuous(FULL.denoise, x, key=key, num_times=3).total,
    ):
        run = jax.jit(run)
        together, alone = run(x_0, keys), run(x_0[1:2], keys[1:2])
        # rounding of float32 reaches 2e-5 on some machines; other keys change a bound by 5 %
        np.testing.assert_allclose(together[1:2], alone, rtol=1e-4)
        assert (np.abs(together / run(x_0, jnp.roll(keys, 1)) - 1) > 1e-2).all()


def test_bits_are_nats_over_log_two_and_all_channels():
    x_0 = jnp.zeros((2, 4, 6, 3))
    nats = jnp.array([72 * np.log(2.0), 1.0])
    np.testing.assert_allclose(to_bits(nats, x_0), [1.0, 1 / (72 * np.log(2))], rtol=1e-6)
    np.testing.assert_allclose(to_nats(to_bits(nats, x_0), x_0), nats, rtol=1e-6)


def test_bad_arguments_are_named():
    x_0 = jnp.zeros((1, 2, 2, 1))
    with pytest.raises(ValueError, match=r"gamma=1.5: between 0"):
        vlb(FULL.denoise, x_0, logsnrs=ladder(4), key=KEY, gamma=1.5)
    with pytest.raises(ValueError, match="2 rungs: at least 3"):
        vlb(FULL.denoise, x_0, logsnrs=ladder(1), key=KEY)
    with pytest.raises(ValueError, match="num_times=0: at least 1"):
        vlb_continuous(FULL.denoise, x_0, key=KEY, num_times=0)
    with pytest.raises(ValueError, match=r"logsnr_min=3.0: below logsnr_max=2.0"):
        vlb_continuous(FULL.denoise, x_0, key=KEY, logsnr_min=3.0, logsnr_max=2.0)
