import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion.schedule import cosine
from diffjax.diffusion.training import loss, uncertainty
from diffjax.diffusion.training.times import Times
from tests.diffusion.helpers import images

LOSSES = jax.random.gamma(jax.random.key(0), 2.0, (512,))


def test_the_least_of_it_is_at_the_log_of_the_expected_loss_and_is_one_plus_that():
    expected = lambda u: jnp.mean(uncertainty.uncertain(LOSSES, jnp.full(512, u)))  # noqa: E731
    best = np.log(LOSSES.mean())
    assert float(jax.grad(expected)(best)) == pytest.approx(0.0, abs=1e-6)
    # strictly convex, of curvature 1 there: the only least
    assert float(jax.grad(jax.grad(expected))(best)) == pytest.approx(1.0, abs=1e-5)
    assert float(expected(best)) == pytest.approx(1 + best, abs=1e-5)


def test_at_the_least_each_level_pulls_as_its_loss_over_the_expected_one():
    best = jnp.full(512, np.log(LOSSES.mean()))
    pull = jax.grad(lambda x: jnp.sum(uncertainty.uncertain(x, best)))(LOSSES)
    np.testing.assert_allclose(pull, 1 / LOSSES.mean(), rtol=1e-5)


def test_training_starts_from_the_plain_loss():
    x_0 = images(0)
    value, aux = loss.diffusion_loss(
        lambda x, _: 0.3 * x, x_0, key=jax.random.key(2), schedule=cosine()
    )
    params = uncertainty.init()
    np.testing.assert_array_equal(uncertainty.apply(params, aux.logsnr_t), 0.0)
    assert float(uncertainty.uncertain_loss(params, aux)) == pytest.approx(float(value), rel=1e-6)


def test_times_keep_their_weights():
    """Drawn twice as often and weighted by half is the same."""
    u, weight = jnp.array([0.2, 0.6, 0.6]), jnp.array([1.5, 0.75, 0.75])
    params = {"weight": jnp.linspace(-1, 1, 16)}
    aux = loss.LossAux(jnp.array([3.0, 2.0, 2.0]), cosine()(u), Times(u, weight))
    once = loss.LossAux(aux.per_example[:2], aux.logsnr_t[:2], Times(u[:2], jnp.ones(2)))
    np.testing.assert_allclose(
        uncertainty.uncertain_loss(params, aux), uncertainty.uncertain_loss(params, once), rtol=1e-6
    )


def test_features_have_unit_mean_square_and_c_noise_of_edm():
    """c_noise = log(sigma) / 4 of sigma = e^(-logsnr / 2): the features turn with -logsnr / 8."""
    logsnr = jnp.linspace(-20.0, 20.0, 401)
    values = np.asarray(uncertainty.features(logsnr, 4096), np.float64)
    np.testing.assert_allclose((values**2).mean(axis=1), 1.0, atol=0.1)
    # E[f(c) f(c + d)] over N(0, 1) frequencies is e^(-2 pi^2 d^2), d = 1.6 / 8 for 16 places
    np.testing.assert_allclose(
        (values[:-16] * values[16:]).mean(), np.exp(-2 * np.pi**2 * 0.2**2), atol=0.03
    )


def test_the_line_on_features_can_say_the_log_loss_of_gaussian_data():
    """u* = log(c / (1 + c SNR)), the log of EDM-like data's error in x_0, to 0.01."""
    logsnr = jnp.linspace(-20.0, 20.0, 401)
    best = -np.logaddexp(np.log(4.0), logsnr)
    design = uncertainty.features(logsnr, 128) / np.sqrt(128)
    weight = np.linalg.lstsq(np.asarray(design, np.float64), best, rcond=1e-6)[0]
    got = uncertainty.apply({"weight": jnp.asarray(weight, jnp.float32)}, logsnr)
    np.testing.assert_allclose(got, best, atol=0.01)


def test_no_features_are_refused():
    with pytest.raises(ValueError, match="num_features=0: at least 1"):
        uncertainty.init(0)
