"""Flow matching, said in log SNR: the straight path, its velocity, Euler's steps, its shift."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import schedule
from diffjax.diffusion.predict import as_denoiser, target
from diffjax.diffusion.process import alpha_sigma, diffuse
from diffjax.diffusion.sampling import sampler, spacing

FLOW = schedule.flow()
MEAN, DEVIATION = 0.7, 0.4


def time_of(logsnr):
    """t of the straight path, logsnr = 2 log((1 - t) / t)."""
    return 1 / (1 + np.exp(np.asarray(logsnr, np.float64) / 2))


def velocity(x, logsnr):
    """E[eps - x_0 | x] for data N(MEAN, DEVIATION^2), as a network says it of our x_t.

    With z = (1 - t) x_0 + t eps and d = z - (1 - t) m it is -m + (t - (1 - t) s^2) / ((1 - t)^2 s^2
    + t^2) d; z is x_t times the length of (1 - t, t).
    """
    t = 1 / (1 + jnp.exp(logsnr / 2))[:, None]
    z = x * jnp.sqrt((1 - t) ** 2 + t**2)
    gain = (t - (1 - t) * DEVIATION**2) / ((1 - t) ** 2 * DEVIATION**2 + t**2)
    return -MEAN + gain * (z - (1 - t) * MEAN)


def test_x_t_is_the_straight_path_at_unit_length_and_its_target_the_velocity():
    draw = np.random.default_rng(0)
    x_0, eps = draw.normal(size=(2, 6, 3)).astype(np.float32)
    logsnr = FLOW(jnp.linspace(0.0, 1.0, 6))
    t = time_of(logsnr)[:, None]
    straight = (1 - t) * x_0 + t * eps
    found = diffuse(jnp.asarray(x_0), jnp.asarray(eps), logsnr)
    np.testing.assert_allclose(found, straight / np.hypot(1 - t, t), rtol=2e-5, atol=1e-5)
    said = target(jnp.asarray(x_0), jnp.asarray(eps), logsnr, "flow")
    np.testing.assert_allclose(said, eps - x_0, rtol=1e-6, atol=1e-6)
    alpha, sigma = alpha_sigma(logsnr, said)
    np.testing.assert_allclose(sigma / (alpha + sigma), t, rtol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 8, 32])
@pytest.mark.parametrize("name", ["euler", "ddim"])
def test_euler_of_a_gaussian_is_the_product_of_its_steps_in_closed_form(name, num_steps):
    """z + (t' - t) v(z, t) moves d = z - (1 - t) m to d (1 + (t' - t) a(t)), all in float64."""
    rungs = spacing.uniform(FLOW, num_steps)
    t = time_of(rungs)
    assert t[-1] == 0
    np.testing.assert_allclose(np.diff(t), -1 / num_steps, atol=1e-4)  # even in t, to its ends
    x_1 = np.random.default_rng(1).normal(size=(5, 4))
    z = x_1 * np.hypot(1 - t[0], t[0])
    d = z - (1 - t[0]) * MEAN
    for now, then in itertools.pairwise(t):
        variance = (1 - now) ** 2 * DEVIATION**2 + now**2
        d = d * (1 + (then - now) * (now - (1 - now) * DEVIATION**2) / variance)
    denoise = as_denoiser(velocity, "flow")
    made = jax.jit(
        lambda x: sampler.sample(denoise, x, logsnrs=rungs, step=sampler.by_name(name), key=None)
    )(jnp.asarray(x_1, jnp.float32))
    np.testing.assert_allclose(made, MEAN + d, atol=3e-5)


def test_many_steps_come_to_the_exact_flow():
    """m + s x_1: the flow keeps the place of a Gaussian's draw in units of its deviation."""
    x_1 = jnp.linspace(-2.0, 2.0, 9)[:, None]
    rungs = spacing.uniform(FLOW, 1000)
    made = jax.jit(
        lambda x: sampler.sample(
            as_denoiser(velocity, "flow"), x, logsnrs=rungs, step=sampler.by_name("euler"), key=None
        )
    )(x_1)
    np.testing.assert_allclose(made, MEAN + DEVIATION * x_1, atol=0.01)


@pytest.mark.parametrize("factor", [1.0, 1 / 3, 0.25])
def test_the_shift_by_resolution_is_that_of_its_paper(factor):
    """t' = s t / (1 + (s - 1) t), s = sqrt(m / n) = 1 / factor (Esser et al. 2024, eq. 23)."""
    u = jnp.linspace(0.0, 1.0, 11)
    t, s = time_of(FLOW(u)), 1 / factor
    moved = time_of(schedule.shifted(FLOW, factor)(u))
    np.testing.assert_allclose(moved, s * t / (1 + (s - 1) * t), rtol=1e-4)
