"""Order, limits and moments of every solver, on data whose flow is known in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion.process import alpha_sigma, diffuse, renoise
from diffjax.diffusion.sampling import sampler
from diffjax.diffusion.sampling.solver import Churn, stirred
from diffjax.diffusion.sampling.step import towards
from tests.diffusion import oracles
from tests.diffusion.helpers import constant_denoiser, images

SHAPE = (
    4,
)  # what holds for vectors holds for data of any shape: see tests/diffusion/test_shapes.py
DATA = oracles.gaussian(np.linspace(-0.4, 0.6, 4), oracles.smooth_covariance((2, 2, 1), 0.3, 1.0))
LOGSNR_MIN, LOGSNR_MAX = -8.0, 6.0
ORDERS = {
    "ddim": 1, "euler": 1, "dpmpp_1s": 1,
    "heun": 2, "dpmpp_2s": 2, "dpmpp_2m": 2, "unipc": 3, "pndm": 2,
}  # fmt: skip
MEMORYLESS = ("ddim", "euler", "heun", "dpmpp_2s")


def exact_flow(x_T, logsnr_from, logsnr_to):
    """The probability-flow ODE of a Gaussian: (x - alpha m) / deviation never changes."""
    (values,), (vectors,) = DATA.values, DATA.vectors
    mean = DATA.means.reshape(1, -1)
    sides = []
    for logsnr in (logsnr_from, logsnr_to):
        alpha_2 = 1 / (1 + np.exp(-logsnr))
        sides.append((np.sqrt(alpha_2), np.sqrt(alpha_2 * values + 1 - alpha_2)))
    (alpha_t, deviation_t), (alpha_s, deviation_s) = sides
    z = (np.asarray(x_T, np.float64).reshape(len(x_T), -1) - alpha_t * mean) @ vectors / deviation_t
    return (alpha_s * mean + (z * deviation_s) @ vectors.T).reshape(x_T.shape)


@functools.cache
def errors(name, num_steps):
    """The largest error of `num_steps` steps uniform in log SNR, in float64."""
    with jax.enable_x64(True):
        x_T = jax.random.normal(jax.random.key(0), (16, *SHAPE), jnp.float64)
        rungs = jnp.linspace(LOGSNR_MIN, LOGSNR_MAX, num_steps + 1, dtype=jnp.float64)
        run = jax.jit(
            lambda x: sampler.sample(
                DATA.denoise, x, logsnrs=rungs, step=sampler.by_name(name), key=None
            )
        )
        return float(np.abs(run(x_T) - exact_flow(x_T, LOGSNR_MIN, LOGSNR_MAX)).max())


@pytest.mark.parametrize("name", ORDERS)
def test_the_error_falls_with_the_order_of_the_solver(name):
    """Halving the steps divides the error by 2^order; measured at 128 -> 256 steps."""
    order = np.log2(errors(name, 128) / errors(name, 256))
    assert order == pytest.approx(ORDERS[name], abs=0.2)


@pytest.mark.parametrize("name", ORDERS)
def test_at_64_steps_a_second_order_solver_is_far_ahead_of_ddim(name):
    if ORDERS[name] == 1:
        assert errors(name, 64) == pytest.approx(errors("ddim", 64), rel=1e-9)
    else:
        assert errors(name, 64) < errors("ddim", 64) / 10


def test_heun_is_the_average_of_the_two_slopes_in_sigma():
    """Karras et al. 2022, algorithm 1, written as they do, in float64."""
    with jax.enable_x64(True):
        logsnr_t, logsnr_s = jnp.full(4, -1.0, jnp.float64), jnp.full(4, 1.5, jnp.float64)
        x_t = jax.random.normal(jax.random.key(1), (4, *SHAPE), jnp.float64)
        got = sampler.heun()(DATA.denoise, x_t, logsnr_t, logsnr_s, key=None)
        sigma_t, sigma_s = np.exp(0.5), np.exp(-0.75)
        alpha_t, alpha_s = 1 / np.sqrt(1 + sigma_t**2), 1 / np.sqrt(1 + sigma_s**2)
        x = x_t / alpha_t
        d = (x - DATA.denoise(alpha_t * x, logsnr_t)) / sigma_t
        x_euler = x + (sigma_s - sigma_t) * d
        d_next = (x_euler - DATA.denoise(alpha_s * x_euler, logsnr_s)) / sigma_s
        wanted = alpha_s * (x + (sigma_s - sigma_t) * (d + d_next) / 2)
    np.testing.assert_allclose(got, wanted, atol=1e-12)


def test_towards_is_ddim_with_the_eps_of_its_guess():
    x_0_hat, x_t = images(0), images(1)
    logsnr_t, logsnr_s = jnp.full(4, -2.0), jnp.full(4, 0.7)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(logsnr_t), alpha_sigma(logsnr_s)
    wanted = alpha_s * x_0_hat + sigma_s * (x_t - alpha_t * x_0_hat) / sigma_t
    np.testing.assert_allclose(towards(x_0_hat, x_t, logsnr_t, logsnr_s), wanted, atol=2e-6)
    clean = towards(x_0_hat, x_t, logsnr_t, jnp.full(4, jnp.inf))
    np.testing.assert_array_equal(clean, x_0_hat)


def test_churn_raises_the_noise_level_and_keeps_the_marginal():
    churn = Churn(per_step=0.3, noise=1.0)
    x_0 = jnp.full((65_536, 4), 0.5)
    logsnr_t = jnp.full(65_536, 0.5)
    x_t = diffuse(x_0, images(2, x_0.shape), logsnr_t)
    x_hat, logsnr_hat = stirred(x_t, logsnr_t, churn, jax.random.key(3))
    sigma, sigma_hat = np.exp(-0.25), float(jnp.exp(-0.5 * logsnr_hat[0]))
    assert sigma_hat == pytest.approx(1.3 * sigma, rel=1e-6)
    alpha_hat, sigma_hat = (float(part[0].item()) for part in alpha_sigma(logsnr_hat[:1]))
    assert float(x_hat.mean()) == pytest.approx(0.5 * alpha_hat, abs=0.01)
    assert float(x_hat.std()) == pytest.approx(sigma_hat, rel=0.02)


@pytest.mark.parametrize(
    ("churn", "growth"),
    [
        (Churn(0.9), np.sqrt(2) - 1),
        (Churn(0.2, sigma_max=0.5), 0.0),
        (Churn(0.2, sigma_min=2.0), 0.0),
        (Churn(0.2, sigma_min=0.9, sigma_max=1.1), 0.2),
        (None, 0.0),
    ],
)
def test_churn_is_capped_and_kept_to_its_interval(churn, growth):
    logsnr_t = jnp.zeros(2)  # sigma / alpha = 1
    _, logsnr_hat = stirred(images(0, (2, 2, 2, 1)), logsnr_t, churn, jax.random.key(0))
    np.testing.assert_allclose(np.exp(-0.5 * logsnr_hat), 1 + growth, rtol=1e-6)


def test_the_noise_of_churn_scales_with_s_noise():
    x_t, logsnr_t = jnp.zeros((4096, 1, 1, 2)), jnp.zeros(4096)
    one, more = (
        stirred(x_t, logsnr_t, Churn(0.3, noise=noise), jax.random.key(0))[0]
        for noise in (1.0, 1.007)
    )
    np.testing.assert_allclose(more, 1.007 * one, rtol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_an_sde_step_keeps_the_marginal_whatever_eta(eta):
    """From x_t ~ q(x_t | x_0) with the true x_0, x_s ~ q(x_s | x_0): mean and deviation."""
    rule = sampler.dpmpp_2m_sde(eta)
    x_0 = jnp.full((8192, 1, 1, 4), 0.6)
    logsnr_t, logsnr_s = jnp.full((8192,), -1.0), jnp.full((8192,), 1.5)
    x_t = diffuse(x_0, images(5, x_0.shape), logsnr_t)
    x_s, _ = rule.step(
        constant_denoiser(x_0), x_t, logsnr_t, logsnr_s, rule.start(x_t), key=jax.random.key(1)
    )
    alpha_s, sigma_s = alpha_sigma(logsnr_s[:1])
    assert float(x_s.mean()) == pytest.approx(0.6 * alpha_s.item(), abs=0.01)
    assert float(x_s.std()) == pytest.approx(sigma_s.item(), rel=0.02)


def test_the_two_guesses_of_2m_lie_on_a_line():
    """If x_0_hat is linear in log(alpha / sigma), 2M guesses its value in mid-step."""
    course = lambda logsnr: 0.2 + 0.3 * logsnr[:, None, None, None]  # noqa: E731
    denoise = lambda x, logsnr: jnp.broadcast_to(course(logsnr), x.shape)  # noqa: E731
    rule, x = sampler.dpmpp_2m(), images(0)
    levels = [jnp.full(4, level) for level in (-3.0, -2.0, 0.5)]
    _, memory = rule.step(denoise, x, levels[0], levels[1], rule.start(x), key=None)
    got, _ = rule.step(denoise, x, levels[1], levels[2], memory, key=None)
    middle = jnp.broadcast_to(course(0.5 * (levels[1] + levels[2])), x.shape)
    np.testing.assert_allclose(got, towards(middle, x, levels[1], levels[2]), atol=1e-6)


@pytest.mark.parametrize("name", ["heun", "dpmpp_2s"])
def test_the_last_rung_is_not_evaluated_twice(name):
    """Both branches are compiled; at the clean rung the answer is the first evaluation's."""
    seen = []

    def denoise(x_t, logsnr_t):
        jax.debug.callback(lambda level: seen.append(float(level)), logsnr_t[0])
        return 0.5 * x_t

    rungs = jnp.array([-4.0, -1.0, 2.0, jnp.inf])
    got = sampler.sample(
        denoise, images(0, (1, 2, 2, 1)), logsnrs=rungs, step=sampler.by_name(name), key=None
    )
    jax.block_until_ready(got)
    jax.effects_barrier()
    assert len(seen) == 5
    assert max(seen) == 2.0


@pytest.mark.parametrize("name", ["heun", "dpmpp_2s", "dpmpp_2m", "unipc", "pndm", "dpmpp_2m_sde"])
def test_gradients_through_a_sampler_are_finite(name):
    def loss(scale):
        denoise = lambda x, _: scale * x  # noqa: E731
        step = sampler.by_name(name, 1.0 if name == "dpmpp_2m_sde" else 0.0)
        rungs = jnp.array([-6.0, -2.0, 1.0, 3.0, jnp.inf])
        x = sampler.sample(
            denoise, images(0, (1, 2, 2, 1)), logsnrs=rungs, step=step, key=jax.random.key(0)
        )
        return jnp.sum(x**2)

    assert np.isfinite(jax.grad(loss)(0.5))


@pytest.mark.parametrize("name", MEMORYLESS)
def test_a_step_from_a_rung_to_itself_goes_nowhere(name):
    x, level = images(0), jnp.full(4, 0.7)
    denoise = lambda x, _: 0.3 * x  # noqa: E731
    np.testing.assert_allclose(
        sampler.by_name(name)(denoise, x, level, level, key=None), x, atol=1e-6
    )


def test_renoise_undoes_the_level_that_towards_reached():
    """q(x_t | x_s) after q(x_s | x_0) is q(x_t | x_0): the two go up and down one ladder."""
    x_0 = jnp.full((65_536, 2), 0.4)
    logsnr_s, logsnr_t = jnp.full(65_536, 1.0), jnp.full(65_536, -1.0)
    x_s = diffuse(x_0, images(1, x_0.shape), logsnr_s)
    x_t = renoise(x_s, images(2, x_0.shape), logsnr_s, logsnr_t)
    alpha_t, sigma_t = alpha_sigma(logsnr_t[:1])
    assert float(x_t.mean()) == pytest.approx(0.4 * alpha_t.item(), abs=0.015)
    assert float(x_t.std()) == pytest.approx(sigma_t.item(), rel=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sampler.heun(Churn(-0.1)), r"churn.per_step=-0.1"),
        (lambda: sampler.euler(Churn(0.1, 2.0, 1.0)), r"churn.sigma_min=2.0"),
        (lambda: sampler.dpmpp_2m_sde(-1.0), r"eta=-1.0"),
        (lambda: sampler.by_name("plms"), r"sampler='plms': allowed are ddpm"),
        (lambda: sampler.by_name("unipc", 0.5), r"noise=0.5: unipc adds none"),
    ],
)
def test_a_bad_argument_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
