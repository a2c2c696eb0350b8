"""Editing on Gaussian data, whose conditional distributions are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.diffusion.process import alpha_sigma
from diffjax.diffusion.sampling import inpaint, sampler
from tests.diffusion import oracles
from tests.diffusion.helpers import SHAPES, constant_denoiser, images

KEY = jax.random.key(5)
# two pixels, strongly correlated: what fills one must heed the other
MEAN = np.array([[[0.3], [-0.2]]])
COVARIANCE = np.array([[0.5, 0.42], [0.42, 0.6]])
PAIR = oracles.gaussian(MEAN, COVARIANCE)
MASK = jnp.array([[[False], [True]]])[None]  # the first pixel is known
LADDER = jnp.append(jnp.linspace(-10.0, 8.0, 60), jnp.inf)


@functools.cache
def fill(resample, jump=10):
    known_value = 1.2
    known = jnp.zeros((4096, 1, 2, 1)).at[:, :, 0].set(known_value)
    run = jax.jit(
        lambda x, key: inpaint.inpaint(
            PAIR.denoise, x, known=known, mask=MASK, logsnrs=LADDER, step=sampler.ddpm(),
            key=key, resample=resample, jump=jump,
        )
    )  # fmt: skip
    return np.asarray(run(images(1, known.shape), KEY)).reshape(-1, 2)


def conditional(known_value=1.2):
    mean = MEAN.ravel()
    slope = COVARIANCE[0, 1] / COVARIANCE[0, 0]
    return mean[1] + slope * (known_value - mean[0]), COVARIANCE[1, 1] - slope * COVARIANCE[0, 1]


@pytest.mark.parametrize("resample", [1, 10])
def test_the_known_region_comes_out_as_it_went_in(resample):
    np.testing.assert_array_equal(fill(resample)[:, 0], np.float32(1.2))


@pytest.mark.slow
def test_repaint_fills_from_the_conditional_distribution():
    """p(x_2 | x_1 = 1.2) of the correlated pair, in the limit of many short jumps.

    4,096 draws: the standard error of the mean is 0.008; the variance lacks the steps' own share.
    """
    mean, variance = conditional()
    filled = fill(60, 5)[:, 1]
    assert filled.mean() == pytest.approx(mean, abs=0.06)
    assert filled.var() == pytest.approx(variance, rel=0.3)


def miss(filled):
    """How far the mean and the standard deviation of what was filled in are from the exact ones."""
    mean, variance = conditional()
    return abs(filled[:, 1].mean() - mean) + abs(filled[:, 1].std() - np.sqrt(variance))


def test_resampling_comes_closer_to_the_conditional_than_replacement():
    assert miss(fill(10)) < 0.5 * miss(fill(1))  # seen: 0.09 and 0.36


@pytest.mark.slow
def test_more_resampling_comes_closer_still():
    assert miss(fill(60, 5)) < 0.5 * miss(fill(10))  # seen: 0.03 and 0.09


@pytest.mark.parametrize("shape", [(2,), (2, 1), (1, 2), (1, 2, 1)], ids=SHAPES)
@pytest.mark.parametrize("logsnr", [-8.0, -1.0, 2.0, np.inf])
def test_the_known_region_has_the_statistics_of_its_level(logsnr, shape):
    """Inpainting keeps the known region noised as q(x_t | x_0), not clean."""
    known = jnp.full((65_536, *shape), 0.7)
    level = jnp.full(65_536, logsnr)
    mask = MASK.reshape(1, *shape)
    got = inpaint.merge(jnp.full_like(known, 9.0), known, mask, level, KEY).reshape(-1, 2)
    alpha, sigma = (float(part[0].item()) for part in alpha_sigma(level[:1]))
    np.testing.assert_array_equal(got[:, 1], 9.0)
    assert float(got[:, 0].mean()) == pytest.approx(0.7 * alpha, abs=0.03 * sigma + 1e-6)
    assert float(got[:, 0].std()) == pytest.approx(sigma, rel=0.03, abs=1e-6)


def test_every_level_that_the_denoiser_sees_holds_the_known_region_at_that_level():
    known = jnp.full((2048, 1, 2, 1), 0.7)
    seen = []

    def denoise(x_t, logsnr_t):
        jax.debug.callback(
            lambda x, level: seen.append((float(level), x.mean(), x.std())),
            x_t[:, :, 0],
            logsnr_t[0],
        )
        return PAIR.denoise(x_t, logsnr_t)

    rungs = jnp.append(jnp.linspace(-6.0, 4.0, 8), jnp.inf)
    out = inpaint.inpaint(
        denoise, images(0, known.shape), known=known, mask=MASK, logsnrs=rungs,
        step=sampler.ddim(), key=KEY, resample=2, jump=3,
    )  # fmt: skip
    jax.block_until_ready(out)
    jax.effects_barrier()
    assert len(seen) == 8 + 6  # each rung once, and two stretches of three rungs again
    for level, mean, deviation in seen:
        alpha, sigma = (float(part.item()) for part in alpha_sigma(jnp.full(1, level)))
        assert mean == pytest.approx(0.7 * alpha, abs=0.1 * sigma + 1e-3), level
        assert deviation == pytest.approx(sigma, rel=0.08), level


def test_the_walk_goes_down_by_one_and_back_by_the_jump():
    at, to = inpaint.inpainting_path(9, 2, 3)
    wanted = [0, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7, 8]
    assert at.tolist() == wanted[:-1]
    assert to.tolist() == wanted[1:]
    at, to = inpaint.inpainting_path(5, 1, 2)
    assert (at.tolist(), to.tolist()) == ([0, 1, 2, 3], [1, 2, 3, 4])


@pytest.mark.parametrize(("resample", "jump", "name"), [(0, 1, "resample=0"), (2, 0, "jump=0")])
def test_a_walk_that_cannot_be_is_named(resample, jump, name):
    with pytest.raises(ValueError, match=name):
        inpaint.inpainting_path(9, resample, jump)


def test_inpainting_depends_on_its_own_key_and_not_on_the_batch():
    keys = rng.per_example(jnp.array([11, 12, 13]))
    x_T, known = rng.normal(keys, (3, 1, 2, 1)), images(3, (3, 1, 2, 1))
    run = lambda part: inpaint.inpaint(  # noqa: E731
        PAIR.denoise, x_T[part], known=known[part], mask=MASK, logsnrs=LADDER[::10],
        step=sampler.ddpm(), key=keys[part], resample=2, jump=2,
    )  # fmt: skip
    np.testing.assert_allclose(run(slice(None))[1:2], run(slice(1, 2)), atol=1e-6)


def test_inpainting_works_with_a_solver_that_remembers():
    """A jump back forgets the path that it leaves: with a perfect denoiser the image comes out."""
    x_0 = images(4, (3, 1, 2, 1))
    got = inpaint.inpaint(
        constant_denoiser(x_0), images(5, x_0.shape), known=x_0, mask=MASK, logsnrs=LADDER,
        step=sampler.dpmpp_2m(), key=KEY, resample=3, jump=5,
    )  # fmt: skip
    np.testing.assert_allclose(got, x_0, atol=1e-5)


def test_sdedit_starts_from_the_image_at_the_first_level():
    """At the level where it starts the image is q(x_t | image): scaled by alpha, noise on top."""
    image = jnp.full((8192, 1, 2, 1), 0.8)
    start = 0.5
    got = inpaint.sdedit(
        lambda x, _: x, image, logsnrs=jnp.array([start, jnp.inf]), step=sampler.ddim(), key=KEY
    )  # one rung of an identity denoiser hands back x_t
    alpha, sigma = (float(part.item()) for part in alpha_sigma(jnp.full(1, start)))
    assert float(got.mean()) == pytest.approx(0.8 * alpha, abs=0.02)
    assert float(got.std()) == pytest.approx(sigma, rel=0.02)


def test_sdedit_keeps_more_of_the_image_the_less_it_is_noised():
    """For Gaussian data the posterior mean given x_t is linear in the image: slope = alpha gain."""
    one = oracles.gaussian(np.zeros((1, 1, 1)), 0.5)
    image = jnp.linspace(-1.0, 1.0, 8192).reshape(-1, 1, 1, 1)
    for start in (-2.0, 0.0, 2.0):
        rungs = jnp.append(jnp.linspace(start, 8.0, 60), jnp.inf)
        got = inpaint.sdedit(one.denoise, image, logsnrs=rungs, step=sampler.ddpm(), key=KEY)
        slope = np.polyfit(np.ravel(image), np.ravel(got), 1)[0]
        alpha_2 = 1 / (1 + np.exp(-start))
        assert slope == pytest.approx(0.5 * alpha_2 / (0.5 * alpha_2 + 1 - alpha_2), abs=0.04)


def long_ladder(num=200):
    return jnp.append(jnp.linspace(-10.0, 12.0, num), jnp.inf)


def test_inversion_then_sampling_returns_the_image():
    x_0 = PAIR.sample(jax.random.key(1), 64)
    for step, num, tolerance in ((sampler.ddim(), 400, 0.09), (sampler.heun(), 200, 0.015)):
        rungs = long_ladder(num)
        x_T = inpaint.invert(PAIR.denoise, x_0, logsnrs=rungs, step=step)
        back = sampler.sample(PAIR.denoise, x_T, logsnrs=rungs, step=step, key=None)
        np.testing.assert_allclose(back, x_0, atol=tolerance)


def test_inversion_turns_data_into_white_noise():
    x_T = inpaint.invert(
        PAIR.denoise, PAIR.sample(jax.random.key(2), 8192), logsnrs=long_ladder()
    ).reshape(-1, 2)
    np.testing.assert_allclose(np.mean(x_T, 0), 0.0, atol=0.1)
    np.testing.assert_allclose(np.cov(np.asarray(x_T).T), np.eye(2), atol=0.12)


def test_inversion_refuses_a_rule_that_draws_noise():
    with pytest.raises(ValueError, match="key=None"):
        inpaint.invert(PAIR.denoise, images(0, (1, 1, 2, 1)), logsnrs=LADDER, step=sampler.ddpm())


def test_slerp_walks_the_great_circle():
    x_a, x_b = (
        jnp.zeros((3, 1, 2, 1)).at[:, 0, 0].set(2.0),
        jnp.zeros((3, 1, 2, 1)).at[:, 0, 1].set(2.0),
    )
    got = inpaint.slerp(x_a, x_b, jnp.array([0.0, 1 / 3, 1.0])).reshape(3, 2)
    third = [2 * np.cos(np.pi / 6), 2 * np.sin(np.pi / 6)]
    np.testing.assert_allclose(got, [[2, 0], third, [0, 2]], atol=1e-6)


def test_slerp_keeps_the_variance_of_noise_where_a_line_does_not():
    x_a, x_b = images(0, (2, 32, 32, 3)), images(1, (2, 32, 32, 3))
    middle = inpaint.slerp(x_a, x_b, jnp.full(2, 0.5))
    assert float(middle.std()) == pytest.approx(1.0, abs=0.02)
    assert float((0.5 * (x_a + x_b)).std()) == pytest.approx(np.sqrt(0.5), abs=0.02)


def test_slerp_between_equal_or_opposite_images_is_finite():
    x = images(0)
    np.testing.assert_allclose(inpaint.slerp(x, x, jnp.full(4, 0.3)), x, atol=1e-5)
    assert np.isfinite(inpaint.slerp(x, -x, jnp.full(4, 0.3))).all()


def test_interpolation_ends_at_its_two_images():
    a, b = PAIR.sample(jax.random.key(3), 16), PAIR.sample(jax.random.key(4), 16)
    run = jax.jit(
        lambda weight: inpaint.interpolate(
            PAIR.denoise, a, b, weight, logsnrs=long_ladder(), step=sampler.heun()
        )
    )
    np.testing.assert_allclose(run(jnp.zeros(16)), a, atol=5e-3)
    np.testing.assert_allclose(run(jnp.ones(16)), b, atol=5e-3)


def test_variations_with_eta_zero_are_the_image_and_spread_with_eta():
    image = jnp.broadcast_to(PAIR.sample(jax.random.key(5), 1), (2048, 1, 2, 1))
    spread = []
    for eta in (0.0, 0.3, 1.0):
        got = inpaint.vary(PAIR.denoise, image, logsnrs=long_ladder(), eta=eta, key=KEY)
        spread.append(float(jnp.std(got, axis=0).mean()))
        if eta == 0:
            np.testing.assert_allclose(got, image, atol=0.1)
    assert spread[0] < 1e-5
    assert 0.05 < spread[1] < spread[2]
    # nothing of the image is left at eta = 1 but the data's own distribution
    np.testing.assert_allclose(np.cov(np.asarray(got).reshape(-1, 2).T), COVARIANCE, atol=0.12)
