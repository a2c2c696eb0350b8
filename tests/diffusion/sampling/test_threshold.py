import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core.types import Guess
from diffjax.diffusion.process import per_example
from diffjax.diffusion.sampling import guidance, threshold
from tests.diffusion.helpers import images

LOGSNR = jnp.linspace(-3.0, 3.0, 4)


def itself(x_t, logsnr_t):
    return x_t


@pytest.mark.parametrize("percentile", [50.0, 99.5, 100.0])
@pytest.mark.parametrize("shape", [(4, 8, 6, 3), (4, 4, 4, 3), (3, 5, 3, 3), (4, 4), (3, 3, 3)])
def test_dynamic_threshold_equals_numpy_example_by_example(shape, percentile):
    """Also where the batch is as long as the width."""
    x_0 = 3.0 * images(2, shape) * per_example(jnp.arange(1.0, shape[0] + 1), images(2, shape))
    got = jax.jit(threshold.dynamic_threshold(itself, percentile))(x_0, jnp.zeros(shape[0]))
    for i in range(shape[0]):
        s = max(1.0, np.percentile(np.abs(np.asarray(x_0[i], np.float64)), percentile))
        np.testing.assert_allclose(got[i], np.clip(x_0[i], -s, s) / s, atol=2e-7)
    assert float(jnp.abs(got).max()) <= 1.0 + 1e-6


@pytest.mark.parametrize("name", ["static_threshold", "dynamic_threshold"])
def test_a_threshold_is_the_identity_inside_the_range(name):
    x_0 = jax.random.uniform(jax.random.key(0), (4, 8, 6, 3), minval=-1.0)
    got = jax.jit(getattr(threshold, name)(itself))(x_0, LOGSNR)
    np.testing.assert_array_equal(got, x_0)


def test_an_image_inside_the_range_is_left_alone_whatever_its_neighbours():
    x_0 = 5.0 * images(2)
    x_0 = x_0.at[1].set(jnp.clip(x_0[1], -1.0, 1.0))
    got = jax.jit(threshold.dynamic_threshold(itself))(x_0, LOGSNR)
    np.testing.assert_array_equal(got[1], x_0[1])
    assert float(jnp.abs(got[0] - x_0[0]).max()) > 1.0


def test_a_percentile_meant_as_a_fraction_of_one_hundred_is_kept_in_percent():
    """0.995 is the 0.995th percentile, never the 99.5th: s stays 1 and the image is clipped."""
    x_0 = 3.0 * images(2)
    wrong = threshold.dynamic_threshold(itself, 0.995)(x_0, LOGSNR)
    np.testing.assert_array_equal(wrong, jnp.clip(x_0, -1, 1))


@pytest.mark.parametrize("percentile", [995, 0, -1.0, 100.5])
def test_a_percentile_outside_zero_to_one_hundred_is_refused(percentile):
    with pytest.raises(ValueError, match=f"percentile={percentile}.*at most 100"):
        threshold.dynamic_threshold(itself, percentile)


def test_static_threshold_clips_and_does_not_scale():
    x_0 = 3.0 * images(2)
    got = jax.jit(threshold.static_threshold(itself))(x_0, LOGSNR)
    np.testing.assert_array_equal(got, np.clip(x_0, -1.0, 1.0))


@pytest.mark.parametrize("name", ["static_threshold", "dynamic_threshold"])
def test_a_learned_variance_passes_through_a_threshold(name):
    guess = Guess(3.0 * images(2), images(3))
    got = jax.jit(getattr(threshold, name)(lambda x_t, logsnr_t: guess))(images(0), LOGSNR)
    np.testing.assert_array_equal(got.fraction, guess.fraction)
    plain = getattr(threshold, name)(itself)(guess.x_0, LOGSNR)
    np.testing.assert_allclose(got.x_0, plain, atol=1e-6)


def test_guidance_offers_the_thresholds_too():
    assert guidance.static_threshold is threshold.static_threshold
    assert guidance.dynamic_threshold is threshold.dynamic_threshold
