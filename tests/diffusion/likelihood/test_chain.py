"""The chain rule against closed forms: Gaussians of 16 pixels whose shrunken pictures are noised
averages, and tables of two-pixel pictures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal

from diffjax.diffusion.likelihood import chain, flow
from diffjax.diffusion.likelihood.bound import to_bits, to_nats, vlb_continuous
from diffjax.diffusion.process import alpha_sigma
from diffjax.diffusion.schedule import cosine
from tests.diffusion import oracles

KEY = jax.random.key(7)
SHAPES = ((1, 1, 1), (2, 2, 1), (4, 4, 1))
STD = 0.15
MEAN = np.random.default_rng(0).normal(size=SHAPES[-1]) / 2
DATA = oracles.gaussian(MEAN, oracles.smooth_covariance(SHAPES[-1]))


def halve(x):
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def matrix(shape):
    """`halve` of a picture of `shape` as a matrix on flattened pixels."""
    units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    return np.asarray(halve(units)).reshape(len(units), -1).T


@functools.cache
def moments(stage):
    """Mean and covariance of z_stage, on flattened pixels: z_k = A z_(k+1) + STD noise."""
    if stage == 2:
        return DATA.moments()
    mean, covariance = moments(stage + 1)
    a = matrix(SHAPES[stage + 1])
    return a @ mean, a @ covariance @ a.T + STD**2 * np.eye(len(a))


@functools.cache
def given(stage, alpha=1.0, sigma=0.0):
    """x_stage given z' = alpha z_(stage-1) + sigma eps is N(offset + gain z', covariance)."""
    mean, covariance = moments(stage)
    mean_z, covariance_z = moments(stage - 1)
    cross = alpha * covariance @ matrix(SHAPES[stage]).T
    noisy = alpha**2 * covariance_z + sigma**2 * np.eye(len(covariance_z))
    gain = cross @ np.linalg.inv(noisy)
    return mean - gain @ (alpha * mean_z), gain, covariance - gain @ cross.T


def density_stage(stage, alpha=1.0, sigma=0.0):
    """-log p(x | low_res) in closed form; of the marginal where there is no low_res."""

    def nats(x, low_res, key):
        mean, covariance = moments(stage)
        if low_res is not None:
            offset, gain, covariance = given(stage, alpha, sigma)
            mean = offset + low_res.reshape(len(x), -1) @ gain.T
        return -multivariate_normal.logpdf(x.reshape(len(x), -1), mean, jnp.asarray(covariance))

    return nats


def denoiser(stage, low_res):
    """The exact denoiser of z_stage, of z_stage given low_res where there is one."""
    mean, covariance = moments(stage)
    if low_res is not None:
        offset, gain, covariance = given(stage)
        mean = offset + low_res.reshape(low_res.shape[0], -1) @ gain.T
    centred = oracles.gaussian(np.zeros(SHAPES[stage]), covariance)

    def denoise(x_t, logsnr_t):
        about = jnp.asarray(mean, x_t.dtype).reshape(-1, *SHAPES[stage])
        alpha_t, _ = alpha_sigma(logsnr_t)
        return about + centred.denoise(x_t - alpha_t * about, logsnr_t)

    return denoise


def flow_stage(stage):
    def nats(x, low_res, key):
        return -flow.log_likelihood(denoiser(stage, low_res), x, key=None, probe="exact").log_p

    return nats


def bound_stage(stage):
    """The continuous bound, its mean over noise exact: 2d copies of each picture, see cubature."""

    def nats(x, low_res, key):
        copies = 2 * int(np.prod(x.shape[1:]))
        x = jnp.repeat(x, copies, 0)
        low_res = None if low_res is None else jnp.repeat(low_res, copies, 0)
        bound = vlb_continuous(
            denoiser(stage, low_res), x, key=key, num_times=1024, eight_bit=False
        )
        return to_nats(bound.total, x).reshape(-1, copies).mean(1)

    return nats


@pytest.mark.parametrize(
    "num_stages",
    [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)],
)
def test_a_cascades_flows_add_up_to_the_likelihood_to_1e_3_bits(num_stages):
    """Exact stages: equal for every picture, whatever z was drawn."""
    first = 3 - num_stages
    x_0 = DATA.sample(KEY, 16)
    stages = [flow_stage(k) for k in range(first, 3)]
    shrinks = [chain.noised(halve, STD)] * (num_stages - 1)
    run = jax.jit(lambda x: chain.cascade_bits_per_dim(stages, shrinks, x, key=KEY).total)
    np.testing.assert_allclose(run(x_0), to_bits(-DATA.log_density(x_0), x_0), atol=1e-3)


def test_a_cascades_variational_bounds_add_up_to_the_likelihood_to_1e_3_bits(monkeypatch):
    with jax.enable_x64(True):
        x_0 = DATA.sample(KEY, 2, jnp.float64)
        z, log_q = chain.noised(halve, STD)(x_0, KEY)
        oracles.cubature(monkeypatch)
        stages, shrinks = [bound_stage(1), bound_stage(2)], [lambda x, key: chain.Shrunk(z, log_q)]
        run = jax.jit(lambda x: chain.cascade_bits_per_dim(stages, shrinks, x, key=KEY).total)
        wanted = to_bits(-DATA.log_density(x_0), x_0)
        np.testing.assert_allclose(run(x_0), wanted, atol=1e-3)


def test_each_share_is_its_own_closed_form():
    x_0 = DATA.sample(KEY, 8)
    z, log_q = chain.noised(halve, STD)(x_0, KEY)
    bits = chain.cascade_bits_per_dim(
        [density_stage(1), density_stage(2)], [lambda x, key: chain.Shrunk(z, log_q)], x_0, key=KEY
    )
    noise = np.asarray(z - halve(x_0), np.float64)
    density = -0.5 * (noise**2 / STD**2 + np.log(2 * np.pi * STD**2)).sum((1, 2, 3))
    per_dim = 16 * np.log(2)
    np.testing.assert_allclose(bits.log_q[0], density / per_dim, rtol=1e-4)
    np.testing.assert_allclose(bits.stages[0], density_stage(1)(z, None, KEY) / per_dim, rtol=1e-4)
    np.testing.assert_allclose(bits.stages[1], density_stage(2)(x_0, z, KEY) / per_dim, rtol=1e-4)


@pytest.mark.parametrize("aug_level", [0.0, 0.3, 0.7, 1.0])
def test_augmentation_costs_what_its_noise_hides_of_the_small_picture(aug_level):
    """I(x; z | z') = h(x | z') - h(x | z) more, within 4 standard errors of 40,000 pictures."""
    logsnr = cosine()(jnp.float32(aug_level))
    alpha, sigma = (float(part.item()) for part in alpha_sigma(logsnr[None]))
    seen = []

    def stage(x, low_res, logsnr_aug, key):
        seen.append(logsnr_aug)
        return density_stage(2, alpha, sigma)(x, low_res, key)

    stages = [density_stage(1), chain.augmented(stage, aug_level, cosine())]
    x_0 = DATA.sample(KEY, 40_000)
    total = chain.cascade_bits_per_dim(stages, [chain.noised(halve, STD)], x_0, key=KEY).total
    gap = np.asarray(total - to_bits(-DATA.log_density(x_0), x_0), np.float64)
    entropy = lambda c: 0.5 * np.linalg.slogdet(c)[1] / (16 * np.log(2))  # noqa: E731
    wanted = entropy(given(2, alpha, sigma)[2]) - entropy(given(2)[2])
    assert abs(gap.mean() - wanted) < 4 * gap.std() / np.sqrt(len(gap)) + 1e-5
    np.testing.assert_allclose(seen[0], logsnr, rtol=1e-6)
    assert wanted == pytest.approx(0.0, abs=1e-6) if aug_level == 0 else wanted > 0.005


LEVELS = np.array([0, 60, 61, 255])
# every picture [1 2 1] of two of the four levels, with a probability each
PAIRS = np.stack(np.meshgrid(LEVELS, LEVELS, indexing="ij"), -1).reshape(-1, 1, 2, 1)
ODDS = np.random.default_rng(3).dirichlet(np.ones(16))


def pair_mean(x):
    return x.mean(2, keepdims=True)


def test_where_the_small_picture_is_a_function_the_chain_is_exact_for_tables():
    """p(z) p(x | z) = p(x) for all 16 two-pixel pictures, and a stage that leaks pays for it."""
    pictures = jnp.asarray(PAIRS / 127.5 - 1, jnp.float32)
    shrink = chain.rounded(pair_mean)
    z, log_q = shrink(pictures, KEY)
    assert np.all(np.asarray(log_q) == 0)
    groups = np.round((np.asarray(z).ravel() + 1) * 127.5).astype(int)
    # numpy and jax round a half to even both: 60.5 -> 60
    np.testing.assert_array_equal(groups, np.round(PAIRS.mean((1, 2, 3))).astype(int))
    odds_z = np.array([ODDS[groups == group].sum() for group in groups])

    def small(x, low_res, key):
        np.testing.assert_array_equal(x, z)
        return -jnp.log(jnp.asarray(odds_z))

    def large(leak):
        def nats(x, low_res, key):
            np.testing.assert_array_equal(low_res, z)
            return -jnp.log((1 - leak) * jnp.asarray(ODDS / odds_z))

        return nats

    run = lambda leak: chain.cascade_bits_per_dim(  # noqa: E731
        [small, large(leak)], [shrink], pictures, key=KEY
    )
    np.testing.assert_allclose(run(0.0).total, -np.log2(ODDS) / 2, rtol=1e-5)
    np.testing.assert_allclose(run(0.1).total, -np.log2(0.9 * ODDS) / 2, rtol=1e-5)


def test_every_stage_and_every_shrinking_draws_from_a_key_of_its_own():
    keys = []

    def stage(x, low_res, key):
        keys.append(jax.random.key_data(key).tolist())
        return jnp.zeros(len(x))

    def shrink(x, key):
        keys.append(jax.random.key_data(key).tolist())
        return chain.Shrunk(halve(x), jnp.zeros(len(x)))

    x_0 = DATA.sample(KEY, 2)
    chain.cascade_bits_per_dim([stage] * 3, [shrink] * 2, x_0, key=KEY)
    assert len({tuple(key) for key in keys}) == 5


def test_pictures_go_from_small_to_large_and_each_sees_the_one_before():
    seen = []

    def stage(x, low_res, key):
        seen.append((x.shape[1], None if low_res is None else low_res.shape[1]))
        return jnp.full(len(x), float(x.shape[1]))

    shrink = lambda x, key: chain.Shrunk(halve(x), jnp.full(len(x), -float(x.shape[1])))  # noqa: E731
    bits = chain.cascade_bits_per_dim([stage] * 3, [shrink] * 2, DATA.sample(KEY, 2), key=KEY)
    assert seen == [(1, None), (2, 1), (4, 2)]
    per_dim = 16 * np.log(2)
    np.testing.assert_allclose([s[0] * per_dim for s in bits.stages], [1, 2, 4], rtol=1e-6)
    np.testing.assert_allclose([s[0] * per_dim for s in bits.log_q], [-2, -4], rtol=1e-6)
    np.testing.assert_allclose(bits.total * per_dim, [1.0, 1.0], rtol=1e-5)


def test_bad_arguments_are_named():
    one = jnp.ones(2)
    with pytest.raises(ValueError, match="log_q of 2 shrinkings"):
        chain.chain_bits_per_dim([one, one], [one, one], 3)
    with pytest.raises(ValueError, match="stage_nats of 0 stages"):
        chain.chain_bits_per_dim([], [], 3)
    with pytest.raises(ValueError, match="dims=0"):
        chain.chain_bits_per_dim([one], [], 0)
    with pytest.raises(ValueError, match="2 shrinks for 2 stages"):
        chain.cascade_bits_per_dim(
            [flow_stage(2)] * 2, [halve] * 2, jnp.ones((1, 4, 4, 1)), key=KEY
        )
    with pytest.raises(ValueError, match="std=0: above 0"):
        chain.noised(halve, 0)
    with pytest.raises(ValueError, match="low_res=None"):
        chain.augmented(lambda *args: one, 0.1, cosine())(jnp.ones((1, 4, 4, 1)), None, KEY)
