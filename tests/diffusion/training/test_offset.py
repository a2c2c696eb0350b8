import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion.training.offset import offset_noise


@pytest.mark.parametrize("strength", [0.1, 0.5])
def test_the_covariance_is_that_of_noise_plus_a_number_per_channel(strength):
    """1 + s^2 of a number with itself, s^2 within a channel, 0 between channels and examples."""
    key_eps, key = jax.random.split(jax.random.key(0))
    num = 20_000
    eps = jax.random.normal(key_eps, (num, 1, 2, 2))
    made = np.asarray(offset_noise(eps, key, strength), np.float64).reshape(num, 4)
    same_channel = np.array([[i % 2 == j % 2 for j in range(4)] for i in range(4)])
    want = np.eye(4) + strength**2 * same_channel
    np.testing.assert_allclose(made.T @ made / num, want, atol=0.05)
    assert abs(np.mean(made[:-1] * made[1:])) < 0.02


def test_what_is_added_is_equal_at_all_places_whatever_the_shape():
    for shape in ((3, 5), (3, 4, 5), (3, 2, 4, 5)):
        added = np.asarray(offset_noise(jnp.zeros(shape), jax.random.key(1), 1.0))
        assert added.shape == shape
        flat = added.reshape(3, -1, 5)
        np.testing.assert_array_equal(flat, np.broadcast_to(flat[:, :1], flat.shape))
        assert len(np.unique(flat[:, 0])) == 15
