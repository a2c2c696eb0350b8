"""The error by level and the bounds against closed forms of Gaussians, through the whole seam."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion.schedule import uniform
from diffjax.evaluation.denoising import Bits, ChainBits, NoiseLevels, lowest
from diffjax.evaluation.evaluator import means
from tests.evaluation import subjects
from tests.evaluation.subjects import STD

COUNT = 4096
X = (STD * np.random.default_rng(1).standard_normal((COUNT, 4))).astype(np.float32)
FOUND = subjects.examples({"x": X})
# -log2 p(x) per number, for each example
OWN = (0.5 * np.log(2 * np.pi * STD**2) + (X**2).mean(1) / (2 * STD**2)) / np.log(2)
LEVELS, BITS = NoiseLevels((-8.0, -4.0, 0.0, 4.0, 8.0)), Bits((6.0, 8.0, 13.0), 64)


def near(rows, wanted, at_most):
    """The mean of the rows is what is wanted, to four of its standard errors, which are small."""
    error = rows.std() / np.sqrt(len(rows))
    assert error < at_most
    assert abs(rows.mean() - wanted) < 4 * error


@pytest.fixture(scope="module")
def exact():
    """What the exact denoiser answers."""
    return subjects.evaluator(subjects.numbers_task(), FOUND, [LEVELS, BITS]).answers({})


@pytest.mark.parametrize(("low", "high"), [(-8.0, -4.0), (-4.0, 0.0), (0.0, 4.0), (4.0, 8.0)])
def test_the_error_of_the_exact_denoiser_at_each_level_is_what_the_noise_hides(exact, low, high):
    """|v - v_hat|^2 = s^2 / (alpha^2 s^2 + sigma^2), a mean over each bin."""
    signal = 1 / (1 + np.exp(-np.linspace(low, high, 10_001)))
    wanted = np.mean(STD**2 / (signal * STD**2 + 1 - signal))
    near(exact[f"loss_logsnr_{low:g}_{high:g}"], wanted, 0.02 * wanted)


def test_the_bound_of_a_gaussian_is_its_own_log_density(exact):
    """The Gaussian at the end knows nothing of s^2, which costs nothing where it ends late."""
    near(exact["bits_per_dim_to_13"] - OWN, 0.0, 0.02)


def test_the_bound_of_a_worse_denoiser_is_higher_the_later_it_ends(exact):
    worse = subjects.numbers_task(lambda x_t, logsnr_t: 0.9 * subjects.exactly(x_t, logsnr_t))
    loose = means(subjects.evaluator(worse, FOUND, [BITS]).answers({}))
    tight = means(exact)
    assert all(loose[name] > tight[name] + 0.1 for name in loose)
    assert [loose[f"bits_per_dim_to_{end}"] for end in (6, 8, 13)] == sorted(loose.values())
    assert lowest(loose) == (loose["bits_per_dim_to_6"], 6.0)


def test_what_the_schedule_does_not_reach_is_not_asked():
    """A bound ends where the schedule does, with a Gaussian of that level's width."""
    task = dataclasses.replace(subjects.numbers_task(), schedule=uniform(-20.0, 3.0))
    found = subjects.evaluator(task, FOUND, [LEVELS, Bits((2.0, 4.0, 10.0), 64)]).answers({})
    there = {name: np.isfinite(rows).mean() for name, rows in found.items()}
    assert there["loss_logsnr_4_8"] == there["bits_per_dim_to_10"] == 0
    assert there["loss_logsnr_-4_0"] == there["bits_per_dim_to_4"] == 1
    assert there["loss_logsnr_0_4"] == pytest.approx(0.75, abs=0.05)
    assert LEVELS.missing(task) == ["loss_logsnr_4_8"]
    # KL of the posterior, of variance 1 / (1 / s^2 + e^l), from the Gaussian of variance e^-l
    ratio = np.exp(3) / (STD**-2 + np.exp(3))
    extra = 0.5 * (ratio - 1 - np.log(ratio)) / np.log(2)
    assert extra > 0.15
    near(found["bits_per_dim_to_4"] - OWN, extra, 0.02)
    assert np.isnan(lowest({})[0])


def test_the_bits_of_a_cascade_are_the_entropies_of_its_stages_over_the_largest_picture():
    """H(z) + H(x | noised z) for pixels that are independent normals, rounded to 8 bits."""
    small, large = subjects.cascade()
    images = subjects.pictures(COUNT)
    ask = subjects.evaluator(
        (small, large), subjects.examples({"image": images}), [ChainBits((6.0, 8.0), 48)]
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
