import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import schedule

ALL = {
    "cosine": schedule.cosine(),
    "cosine_narrow": schedule.cosine(-15.0, 15.0),
    "linear": schedule.linear(),
}


@pytest.mark.parametrize("name", ALL)
def test_logsnr_falls_strictly_and_is_finite_with_its_gradient_at_both_ends(name):
    u = jnp.linspace(0.0, 1.0, 1001)
    logsnr = ALL[name](u)
    slope = jax.vmap(jax.grad(ALL[name]))(u)
    assert np.all(np.diff(logsnr) < 0)
    assert np.all(np.isfinite(logsnr))
    assert np.all(np.isfinite(slope))


def test_cosine_equals_float64_and_meets_its_ends_in_float32():
    u = np.linspace(0.0, 1.0, 257)
    b = math.atan(math.exp(-10.0))
    a = math.atan(math.exp(10.0)) - b
    np.testing.assert_allclose(ALL["cosine"](u), -2 * np.log(np.tan(a * u + b)), atol=1e-4)
    np.testing.assert_allclose(ALL["cosine"](jnp.array([0.0, 0.5, 1.0])), [20, 0, -20], atol=1e-4)


def test_linear_is_ddpms_thousand_steps():
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    logsnr = ALL["linear"](np.linspace(0, 1, 1000))
    np.testing.assert_allclose(jax.nn.sigmoid(logsnr), alpha_bar, rtol=2e-6)
    # the figures that papers quote: alpha_bar_1 = 0.9999, sqrt(alpha_bar_T) = 0.0064
    assert float(jax.nn.sigmoid(logsnr[0])) == pytest.approx(0.9999, abs=1e-7)
    assert math.sqrt(float(jax.nn.sigmoid(logsnr[-1]))) == pytest.approx(0.0064, abs=5e-5)


def test_table_keeps_the_noise_of_the_first_step_that_float32_cumprod_loses():
    betas = np.full(3, 1e-9)
    np.testing.assert_allclose(schedule.logsnr_table(betas)[0], -np.log(1e-9), rtol=1e-8)


def test_ends_out_of_order_are_refused():
    with pytest.raises(ValueError, match="logsnr_min 5"):
        schedule.cosine(5.0, -5.0)
    with pytest.raises(ValueError, match="beta"):
        schedule.linear(0.0, 0.02)
