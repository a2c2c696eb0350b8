import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.training import averages, profiles


@pytest.mark.parametrize(
    "names",
    [["decay_1"], ["decay_1.0"], ["power_0"], ["power_0.3"], ["ema"], ["decay_"], ["power_ 0.1"],
     ["decay_0_9"], ["decay_-0.1"], ["power_nan"], ["../decay_0.9"], ["decay_0.9", "decay_0.9"]],
)  # fmt: skip
def test_names_that_are_no_average_are_refused(names):
    with pytest.raises(ValueError, match=r"0 <= D < 1|twice"):
        averages.parse(names)


def test_names_keep_their_order():
    names = ["power_0.1", "decay_0.9999", "decay_0", "power_5e-2"]
    assert list(averages.parse(names)) == names
    assert [averages.width_of(name) for name in [*names, "live"]] == [0.1, None, None, 0.05, None]


@pytest.mark.parametrize("name", ["power_0.05", "power_0.1", "power_0.2886"])
def test_weights_are_right_in_float32_at_any_step(name):
    steps = np.array([0, 1, 5, 1000, 10**5, 10**7 - 1])
    exponent = profiles.gamma_of(averages.width_of(name)) + 1
    # the power of a number near 1, in float64, with the digits that the subtraction then loses
    exact = -np.expm1(exponent * np.log1p(-1 / (steps[1:] + 1.0)))
    weights = averages.parse([name])[name](jnp.asarray(steps))
    assert weights[0] == 1.0  # nothing of the start is left
    np.testing.assert_allclose(weights[1:], exact, rtol=1e-6)
    betas = (1 - 1 / (steps[1:4] + 1)) ** exponent
    np.testing.assert_allclose(1 - weights[1:4], betas, atol=1e-7)


def test_an_average_of_what_stands_still_stands_still():
    """As (1 - w) a + w p it would drift: 1 - w is rounded."""
    params = jnp.asarray(np.random.default_rng(0).standard_normal(100), jnp.float32)
    weight = jnp.float32(1e-5)
    np.testing.assert_array_equal(averages.step_towards(params, params, weight), params)
    drifted = (1 - weight) * params + weight * params
    assert np.any(drifted != params)
