"""The error by level and the bounds against closed forms of Gaussians, through the whole seam."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion.schedule import uniform
from diffjax.evaluation.denoising import Bits, CascadeBits, NoiseLevels, lowest
from diffjax.evaluation.evaluator import means
from tests.evaluation import subjects
from tests.evaluation.subjects import STD

COUNT = 4096
X = (STD * np.random.default_rng(1).standard_normal((COUNT, 4))).astype(np.float32)
FOUND = subjects.examples({"x": X})
# -log2 p(x) per number, for each example
OWN = (0.5 * np.log(2 * np.pi * STD**2) + (X**2).mean(1) / (2 * STD**2)) / np.log(2)
LEVELS, BITS = NoiseLevels((-8.0, -4.0, 0.0, 4.0, 8.0)), Bits((2.0, 4.0, 10.0), 64)
CLEAN = 3.0  # where the schedule ends


def near(rows, wanted, at_most):
    """The mean of the rows is what is wanted, to four of its standard errors, which are small."""
    error = rows.std() / np.sqrt(len(rows))
    assert error < at_most
    assert abs(rows.mean() - wanted) < 4 * error


def task_of(answer):
    task = subjects.numbers_task(answer)
    return dataclasses.replace(task, schedule=uniform(-20.0, CLEAN))


@pytest.fixture(scope="module")
def exact():
    """What the exact denoiser answers."""
    return subjects.evaluator(task_of(subjects.exactly), FOUND, [LEVELS, BITS]).answers({})


@pytest.mark.parametrize(("low", "high"), [(-8.0, -4.0), (-4.0, 0.0), (0.0, 4.0)])
def test_the_error_of_the_exact_denoiser_at_each_level_is_what_the_noise_hides(exact, low, high):
    """|v - v_hat|^2 = s^2 / (alpha^2 s^2 + sigma^2), a mean over what the schedule has of a bin."""
    rows = exact[f"loss_logsnr_{low:g}_{high:g}"]
    signal = 1 / (1 + np.exp(-np.linspace(low, min(high, CLEAN), 10_001)))
    wanted = np.mean(STD**2 / (signal * STD**2 + 1 - signal))
    near(rows[np.isfinite(rows)], wanted, 0.02 * wanted)
    assert np.isfinite(rows).mean() == pytest.approx((min(high, CLEAN) - low) / 4, abs=0.05)


def extra(end):
    """KL of the posterior, of variance 1 / (1 / s^2 + e^l), from the Gaussian of e^-l, in bits."""
    ratio = np.exp(end) / (STD**-2 + np.exp(end))
    return 0.5 * (ratio - 1 - np.log(ratio)) / np.log(2)


@pytest.mark.parametrize(("named", "end"), [(2, 2.0), (4, CLEAN)])
def test_the_bound_of_a_gaussian_is_its_log_density_and_what_its_end_costs(exact, named, end):
    """The Gaussian at the end knows nothing of s^2; an end beyond the schedule's is the latter."""
    assert extra(2.0) - 0.1 > extra(CLEAN) > 0.15
    near(exact[f"bits_per_dim_to_{named}"] - OWN, extra(end), 0.02)


def test_what_the_schedule_does_not_reach_is_not_asked(exact):
    there = {name for name, rows in exact.items() if np.isfinite(rows).any()}
    assert set(exact) - there == {"loss_logsnr_4_8", "bits_per_dim_to_10"}
    assert LEVELS.missing(task_of(subjects.exactly)) == ["loss_logsnr_4_8"]
    assert set(means(exact)) == there
    assert np.isnan(lowest({})[0])


def test_the_bound_of_a_worse_denoiser_is_higher(exact):
    worse = task_of(lambda x_t, logsnr_t: 0.5 * subjects.exactly(x_t, logsnr_t))
    loose = subjects.evaluator(worse, FOUND, [BITS]).answers({})
    tight = means(exact)
    assert all(value > tight[name] for name, value in means(loose).items())
    assert means(loose)["bits_per_dim_to_4"] > tight["bits_per_dim_to_4"] + 0.02
    assert lowest(tight) == (tight["bits_per_dim_to_4"], 4.0)


def test_the_bits_of_a_cascade_are_the_entropies_of_its_stages_over_the_largest_picture():
    """H(z) + H(x | noised z) for pixels that are independent normals, rounded to 8 bits."""
    small, large = subjects.cascade()
    images = subjects.pictures(COUNT)
    ask = subjects.evaluator(
        (small, large), subjects.examples({"image": images}), [CascadeBits((6.0, 8.0), 48)]
    )
    rows = ask.answers(({}, {}))
    level = float(large.low_res.schedule(jnp.float32(0.5)))
    _, left = subjects.left_of_mean(jnp.float32(level))
    bits = lambda std: np.log2(np.sqrt(2 * np.pi * np.e) * std / (2 / 255))  # noqa: E731
    of_mean = 3 * bits(STD / 2) / 12
    # along the unit vector of the mean, which is twice as long as the mean, and the three beside it
    of_rest = 3 * (bits(2 * np.sqrt(float(left))) + 3 * bits(STD)) / 12
    # where the noise is as wide as two steps of 8 bits, the mass of a bin is its density's
    near(rows["small_bits_per_dim_to_8"], of_mean, 0.01)
    near(rows["large_bits_per_dim_to_8"], of_rest, 0.01)
    total = rows["small_bits_per_dim_to_8"] + rows["large_bits_per_dim_to_8"]
    near(total, of_mean + of_rest, 0.015)
    # the second stage sees less than the small picture, so the sum is above the entropy of x
    assert of_mean + of_rest > bits(STD) + 0.02
