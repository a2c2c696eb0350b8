import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax.training import averages, state

AVERAGES = averages.parse(["decay_0.99", "decay_0.5", "power_0.1"])


def small_state(dtype=jnp.float32):
    tx = optax.sgd(0.1)
    make = lambda key: {"kernel": jax.random.normal(key, (3,), dtype)}  # noqa: E731
    return jax.jit(lambda key: state.create(make, tx, AVERAGES, key))(jax.random.key(0)), tx


def test_the_average_starts_as_a_copy_that_donation_cannot_touch():
    before, tx = small_state()
    start = np.asarray(before.params["kernel"])
    step = jax.jit(
        lambda s: state.apply_gradients(s, {"kernel": jnp.ones(3)}, tx, AVERAGES), donate_argnums=0
    )
    after = step(before)  # would fail if params and average shared a buffer
    np.testing.assert_allclose(after.params["kernel"], start - 0.1, rtol=1e-6)


def test_the_average_warms_up_as_min_of_decay_and_one_plus_t_over_ten_plus_t():
    steps = jnp.array([0, 1, 90, 100_000])
    weights = averages.decay(0.9999)(steps)
    np.testing.assert_allclose(weights, [0.9, 9 / 11, 0.09, 0.0001], rtol=1e-6)


def test_several_averages_equal_float64_recursions():
    current, tx = small_state()
    start = np.asarray(current.params["kernel"], np.float64)
    expected = dict.fromkeys(AVERAGES, start)
    exponent = averages.gamma_of(0.1) + 1
    step = jax.jit(lambda s: state.apply_gradients(s, {"kernel": s.params["kernel"]}, tx, AVERAGES))
    for t in range(120):
        current = step(current)
        now = np.asarray(current.params["kernel"], np.float64)
        warm_up = (1 + t) / (10 + t)
        betas = (min(0.99, warm_up), min(0.5, warm_up), (1 - 1 / (t + 1)) ** exponent)
        for name, beta in zip(AVERAGES, betas, strict=True):
            expected[name] = beta * expected[name] + (1 - beta) * now
    for name, average in expected.items():
        np.testing.assert_allclose(current.ema_params[name]["kernel"], average, rtol=1e-5)
    assert int(current.step) == 120


def test_the_average_is_float32_and_moves_though_the_parameters_are_bfloat16():
    """bfloat16(0.9999) is 1: an average kept in it would never move."""
    current, tx = small_state(jnp.bfloat16)
    name = "decay_0.9999"
    late = current.replace(
        step=jnp.int32(10**6), ema_params={name: current.ema_params["power_0.1"]}
    )
    assert late.ema_params[name]["kernel"].dtype == jnp.float32
    gradients = {"kernel": jnp.full(3, 1.0, jnp.bfloat16)}
    moved = state.apply_gradients(late, gradients, tx, averages.parse([name]))
    change = moved.ema_params[name]["kernel"] - late.ema_params[name]["kernel"]
    assert np.all(np.abs(change) > 1e-6)


def test_an_average_is_asked_for_by_name():
    current, _ = small_state()
    assert state.averaged(current, "decay_0.5") is current.ema_params["decay_0.5"]
    assert state.averaged(current, "live") is current.params
    with pytest.raises(ValueError, match=r"decay_0\.9; there are decay_0\.5, decay_0\.99, power_0"):
        state.averaged(current, "decay_0.9")


def test_no_two_leaves_of_a_new_state_share_their_memory():
    """The step gives all of it back, each once."""
    tx = optax.sgd(0.1, momentum=0.9)
    make = lambda key: {"kernel": jax.random.normal(key, (3,))}  # noqa: E731
    made = state.create(make, tx, AVERAGES, jax.random.key(0))
    leaves = [leaf for leaf in jax.tree.leaves(made) if leaf.ndim]
    assert len(leaves) == 1 + 3 + 1
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
