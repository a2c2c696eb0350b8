import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffjax import state


def small_state(dtype=jnp.float32):
    tx = optax.sgd(0.1)
    make = lambda key: {"kernel": jax.random.normal(key, (3,), dtype)}  # noqa: E731
    return jax.jit(lambda key: state.create(make, tx, key))(jax.random.key(0)), tx


def test_the_average_starts_as_a_copy_that_donation_cannot_touch():
    before, tx = small_state()
    start = np.asarray(before.params["kernel"])
    step = jax.jit(
        lambda s: state.apply_gradients(s, {"kernel": jnp.ones(3)}, tx, 0.9), donate_argnums=0
    )
    after = step(before)  # would fail if params and average shared a buffer
    np.testing.assert_allclose(after.params["kernel"], start - 0.1, rtol=1e-6)


def test_the_average_warms_up_as_min_of_decay_and_one_plus_t_over_ten_plus_t():
    steps = jnp.array([0, 1, 90, 100_000])
    np.testing.assert_allclose(
        state.ema_decay_at(steps, 0.9999), [0.1, 2 / 11, 0.91, 0.9999], rtol=1e-6
    )


def test_the_average_equals_a_float64_recursion():
    current, tx = small_state()
    average = np.asarray(current.ema_params["kernel"], np.float64)
    step = jax.jit(lambda s: state.apply_gradients(s, {"kernel": s.params["kernel"]}, tx, 0.99))
    for t in range(20):
        current = step(current)
        decay = min(0.99, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * np.asarray(current.params["kernel"], np.float64)
    np.testing.assert_allclose(current.ema_params["kernel"], average, rtol=1e-5)
    assert int(current.step) == 20


def test_the_average_is_float32_and_moves_though_the_parameters_are_bfloat16():
    """bfloat16(0.9999) is 1: an average kept in it would never move."""
    current, tx = small_state(jnp.bfloat16)
    assert current.ema_params["kernel"].dtype == jnp.float32
    late = current.replace(step=jnp.int32(10**6))
    moved = state.apply_gradients(late, {"kernel": jnp.full(3, 1.0, jnp.bfloat16)}, tx, 0.9999)
    change = moved.ema_params["kernel"] - current.ema_params["kernel"]
    assert np.all(np.abs(change) > 1e-6)
