import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax.training import optim


def test_the_rate_climbs_to_its_peak_and_stays_or_falls_to_zero():
    constant = optim.learning_rate(1e-4, warmup_steps=10_000, num_steps=2_500_000)
    steps = [0, 1, 5_000, 10_000, 1_000_000, 2_500_000]
    np.testing.assert_allclose(
        [constant(s) for s in steps], [0, 1e-8, 5e-5, 1e-4, 1e-4, 1e-4], rtol=1e-3
    )
    cosine = optim.learning_rate(1e-4, warmup_steps=100, num_steps=1_100, decay="cosine")
    np.testing.assert_allclose(
        [cosine(s) for s in (0, 100, 600, 1_100)], [0, 1e-4, 5e-5, 0], atol=1e-10
    )
    linear = optim.learning_rate(1e-4, warmup_steps=0, num_steps=1_000, decay="linear")
    np.testing.assert_allclose([linear(s) for s in (0, 250, 1_000)], [1e-4, 7.5e-5, 0], atol=1e-10)
    cooldown = optim.learning_rate(1e-4, warmup_steps=100, num_steps=1_000, decay="cooldown")
    np.testing.assert_allclose(
        [cooldown(s) for s in (50, 100, 800, 900, 1_000)], [5e-5, 1e-4, 1e-4, 5e-5, 0], atol=1e-10
    )


@pytest.mark.parametrize("name", optim.OPTIMISERS)
def test_the_optimiser_follows_the_schedule_and_descends(name):
    rate = optim.learning_rate(0.1, warmup_steps=1, num_steps=100)
    tx = optim.optimiser(name, rate, clip_norm=1.0)
    params = {"kernel": jnp.ones((4, 4))}
    state = tx.init(params)
    for step in range(5):
        updates, state = tx.update(params, state, params)  # the gradient of |p|^2 / 2
        if step == 0:  # the rate at step 0 is 0
            np.testing.assert_array_equal(updates["kernel"], 0.0)
        params = optax.apply_updates(params, updates)
    assert float(jnp.abs(params["kernel"]).max()) < 1.0


def test_gradients_are_clipped_by_their_global_norm():
    tx = optim.optimiser("adam", lambda _: 1.0, clip_norm=1.0)
    huge = {"a": jnp.full((2,), 1e20)}
    updates, _ = tx.update(huge, tx.init(huge), huge)
    assert np.all(np.isfinite(updates["a"]))
