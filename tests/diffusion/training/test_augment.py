import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.diffusion.process import alpha_sigma
from diffjax.diffusion.schedule import cosine
from diffjax.diffusion.training.augment import augment
from tests.diffusion.helpers import images

KEY = jax.random.key(0)


@pytest.mark.parametrize("level", [0.1, 0.3, 1.0])
def test_the_level_told_is_the_level_applied(level):
    low_res = jnp.full((64, 16, 16, 3), 0.5)
    noised, logsnr = augment(low_res, jnp.full((64,), level), key=KEY, schedule=cosine())
    alpha, sigma = alpha_sigma(logsnr)
    assert float(noised.std()) == pytest.approx(float(sigma[0, 0, 0, 0]), rel=0.02)
    assert float(noised.mean()) == pytest.approx(0.5 * float(alpha[0, 0, 0, 0]), abs=0.01)
    assert float(logsnr[0]) == pytest.approx(float(cosine()(level)), abs=1e-5)


def test_level_zero_leaves_the_image_as_it_is():
    low_res = images(0)
    noised, _ = augment(low_res, jnp.zeros(4), key=KEY, schedule=cosine())
    np.testing.assert_allclose(noised, low_res, atol=5e-4)


def test_an_image_draws_its_noise_from_its_own_key():
    low_res = images(0)
    keys = rng.per_example(jnp.arange(4))
    together, _ = augment(low_res, jnp.full((4,), 0.5), key=keys, schedule=cosine())
    alone, _ = augment(low_res[2:3], jnp.full((1,), 0.5), key=keys[2:3], schedule=cosine())
    np.testing.assert_array_equal(together[2:3], alone)
