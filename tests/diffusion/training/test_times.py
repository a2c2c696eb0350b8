import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion.training import times
from diffjax.diffusion.training.loss import mean_over

KEY = jax.random.key(11)
BINS = 8


def full_history(losses):
    """A history that saw, in each bin, the same losses ten times."""
    return times.History(
        jnp.tile(jnp.asarray(losses, jnp.float32)[:, None], (1, 10)), jnp.full(len(losses), 10)
    )


UNEVEN = full_history([0.1, 5.0, 0.3, 1.0, 2.0, 0.2, 0.7, 8.0])
SAMPLERS = {
    "uniform": times.uniform,
    "stratified": times.stratified,
    "importance": times.importance(UNEVEN),
    "importance_empty": times.importance(times.empty_history(BINS)),
}


def estimates(sampler, f, batch=64, num=2000):
    """`num` estimates of the mean of f over u, one per batch."""
    one = lambda key: mean_over(drawn := sampler(key, batch), f(drawn.u))  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, num)))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("power", [0, 1, 3])
def test_the_mean_over_u_is_unbiased_however_times_are_drawn(name, power):
    got = estimates(SAMPLERS[name], lambda u: u**power)
    error = got.std() / np.sqrt(len(got))
    assert got.mean() == pytest.approx(1 / (power + 1), abs=4 * error + 1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_times_lie_in_the_unit_interval_and_differ(name):
    u, weight = jax.jit(SAMPLERS[name], static_argnums=1)(KEY, 4096)
    assert u.shape == weight.shape == (4096,)
    assert float(u.min()) >= 0
    assert float(u.max()) <= 1
    assert len(np.unique(u)) > 4000


def test_stratified_times_fall_one_into_each_share_of_the_interval():
    for seed in range(5):
        u, _ = times.stratified(jax.random.key(seed), 16)
        steps = np.diff(np.sort(u))
        np.testing.assert_allclose(steps, 1 / 16, atol=1e-6)


def test_stratified_times_cut_the_variance_by_far():
    """For the mean of u^2 from 64 times: 4 / (45 * 64) by chance, 1 / (12 * 64^2) in strata."""
    by_chance, by_share = (
        estimates(SAMPLERS[name], jnp.square).var() for name in ("uniform", "stratified")
    )
    assert by_chance == pytest.approx(4 / (45 * 64), rel=0.15)
    assert by_share == pytest.approx(1 / (12 * 64**2), rel=0.15)


def test_importance_takes_each_bin_as_the_root_of_its_mean_squared_loss():
    losses = np.abs(np.random.default_rng(0).normal(size=(BINS, 10))) + 0.1
    history = times.History(jnp.asarray(losses, jnp.float32), jnp.full(BINS, 10))
    p = np.sqrt((losses**2).mean(axis=1))
    p = 0.999 * p / p.sum() + 0.001 / BINS
    np.testing.assert_allclose(times.bin_probabilities(history, 0.001), p, rtol=1e-5)
    u, weight = times.importance(history)(KEY, 200_000)
    which = np.asarray(times.bin_of(u, BINS))
    np.testing.assert_allclose(np.bincount(which) / len(which), p, atol=0.005)
    np.testing.assert_allclose(weight, 1 / (BINS * p[which]), rtol=1e-5)


def test_importance_leaves_no_variance_in_the_loss_that_its_history_holds():
    loss_at = lambda u: UNEVEN.losses[times.bin_of(u, BINS), 0]  # noqa: E731
    by_chance, by_history = (
        estimates(sampler, loss_at).var()
        for sampler in (times.uniform, times.importance(UNEVEN, uniform_share=1e-6))
    )
    assert by_chance > 0.05
    assert by_history < 1e-6 * by_chance


def test_importance_is_uniform_until_every_bin_is_full():
    lacking = UNEVEN._replace(counts=UNEVEN.counts.at[3].set(9))
    np.testing.assert_allclose(times.bin_probabilities(lacking, 0.001), 1 / BINS)
    assert float(times.bin_probabilities(UNEVEN, 0.001).max()) > 0.4


def test_a_history_without_loss_is_uniform_and_finite():
    np.testing.assert_allclose(
        times.bin_probabilities(full_history(np.zeros(BINS)), 0.001), 1 / BINS
    )


def test_a_history_keeps_the_last_losses_of_each_bin_like_a_loop_would():
    draw = np.random.default_rng(1)
    history = times.empty_history(4, memory=3)
    kept = [[] for _ in range(4)]
    enter = jax.jit(times.record)
    for _ in range(12):
        # uneven, so that some batches overrun a bin's memory and some miss it
        u, losses = draw.uniform(size=9) ** 2, draw.normal(size=9)
        history = enter(history, jnp.asarray(u, jnp.float32), jnp.asarray(losses, jnp.float32))
        for at, value in zip(u, losses, strict=True):
            kept[int(at * 4)].append(value)
        for bin_, values in enumerate(kept):
            got = history.losses[bin_][: min(len(values), 3)]
            np.testing.assert_allclose(np.sort(got), np.sort(values[-3:]), rtol=1e-6)
            assert (int(history.counts[bin_]) >= 3) == (len(values) >= 3)
    assert int(history.counts.max()) < 6  # a count that never overflows


def test_a_loss_that_is_not_finite_is_not_kept():
    history = times.record(
        times.empty_history(2, memory=2),
        jnp.array([0.1, 0.2, 0.3, 0.7]),
        jnp.array([1.0, jnp.nan, 3.0, jnp.inf]),
    )
    np.testing.assert_array_equal(history.losses, [[1.0, 3.0], [0.0, 0.0]])
    np.testing.assert_array_equal(history.counts, [2, 0])


@pytest.mark.parametrize("name", SAMPLERS)
def test_discrete_times_are_the_steps_1_to_T_each_alike(name):
    """E[weight 1(step)] = 1 / T, for importance bins that the steps do not fit as well."""
    num_steps = 5
    sampler = times.discrete(num_steps, SAMPLERS[name])
    u, weight = sampler(KEY, 100_000)
    step = np.asarray(u) * num_steps
    np.testing.assert_allclose(step, np.round(step), atol=1e-6)
    share = np.bincount(np.round(step).astype(int), weights=weight, minlength=6) / len(step)
    assert share[0] == 0
    np.testing.assert_allclose(share[1:], 1 / num_steps, rtol=0.05)


def test_discrete_times_of_a_thousand_steps_reach_both_ends():
    steps = times.discrete(1000, times.stratified)(KEY, 1000).u * 1000
    np.testing.assert_allclose(np.sort(steps), np.arange(1, 1001), atol=1e-3)


def test_an_end_of_the_interval_belongs_to_the_last_bin():
    np.testing.assert_array_equal(times.bin_of(jnp.array([0.0, 0.5, 1.0]), 4), [0, 2, 3])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (functools.partial(times.discrete, 0), "num_steps=0"),
        (functools.partial(times.empty_history, 0), "num_bins=0"),
        (functools.partial(times.importance, UNEVEN, 0.0), "uniform_share=0.0"),
    ],
)
def test_an_argument_outside_its_range_is_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.6, 0.5), (1.0, 2.0)])
def test_logit_normal_times_have_the_distribution_of_their_name_and_equal_weights(mean, std):
    """By its distribution function, Phi((log(u / (1 - u)) - mean) / std)."""
    u, weight = times.logit_normal(mean, std)(KEY, 40_000)
    u = np.sort(np.asarray(u, np.float64))
    deviations = (np.log(u / (1 - u)) - mean) / std
    phi = np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in deviations])
    apart = np.abs(phi - (np.arange(len(u)) + 0.5) / len(u)).max()
    assert apart < 3 / math.sqrt(len(u))  # Kolmogorov's bound at 3e-8
    assert np.all(weight == 1)


def test_a_loss_at_logit_normal_times_is_weighted_by_their_density():
    """pi(t) = exp(-(logit t - m)^2 / 2 s^2) / (s sqrt(2 pi) t (1 - t))  (Esser et al. 2024)."""
    mean, std = 0.5, 0.8
    t = (np.arange(20_000) + 0.5) / 20_000
    logit = np.log(t / (1 - t))
    density = np.exp(-((logit - mean) ** 2) / (2 * std**2))
    density /= std * math.sqrt(2 * math.pi) * t * (1 - t)
    got = estimates(times.logit_normal(mean, std), jnp.square)
    error = got.std() / np.sqrt(len(got))
    assert got.mean() == pytest.approx(np.mean(density * t**2), abs=4 * error + 1e-5)


def test_logit_normal_times_compare_by_value_and_refuse_no_spread():
    assert times.logit_normal(0.1, 2.0) == times.logit_normal(0.1, 2.0)
    assert hash(times.logit_normal()) != hash(times.logit_normal(1.0))
    with pytest.raises(ValueError, match=r"std=0\.0: both finite, and std above 0"):
        times.logit_normal(0.0, 0.0)
