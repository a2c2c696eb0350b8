import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import loss, predict
from diffjax.diffusion.process import alpha_sigma
from diffjax.diffusion.schedule import cosine
from tests.diffusion.helpers import gaussian_denoiser, images

KEY = jax.random.key(7)


def oracle(x_0, kind):
    """The network that knows the data."""

    def network(x_t, logsnr_t):
        return {"x_0": predict.to_x_0, "eps": predict.to_eps, "v": predict.to_v}[kind](
            x_0, x_t, logsnr_t, "x_0"
        )

    return network


@pytest.mark.parametrize("kind", predict.KINDS)
def test_a_perfect_network_has_no_loss(kind):
    x_0 = images(0)
    # x_0 -> eps divides by sigma: stay where float32 can
    value, aux = loss.diffusion_loss(
        oracle(x_0, kind), x_0, key=KEY, schedule=cosine(-8, 8), predict=kind, weighting=kind
    )
    assert float(value) < 1e-8
    assert aux.per_example.shape == (4,)


@pytest.mark.parametrize("weighting", predict.KINDS)
def test_the_loss_in_one_space_does_not_depend_on_what_the_network_predicts(weighting):
    x_0 = images(0)
    denoise = gaussian_denoiser(0.0, 1.0)
    as_kind = {"x_0": predict.to_x_0, "eps": predict.to_eps, "v": predict.to_v}
    values = [
        loss.diffusion_loss(
            lambda x, s, k=kind: as_kind[k](denoise(x, s), x, s, "x_0"),
            x_0,
            key=KEY,
            schedule=cosine(-8, 8),
            predict=kind,
            weighting=weighting,
        )[0]
        for kind in predict.KINDS
    ]
    np.testing.assert_allclose(values, values[0], rtol=1e-3)


def test_the_loss_of_the_best_denoiser_of_a_gaussian_is_its_closed_form():
    """x_0 ~ N(0, 1): E|v error|^2 = E[1 / sigma^2 * sigma^2] = 1 at every level."""
    x_0 = images(3, (512, 8, 8, 3))
    denoise = gaussian_denoiser(0.0, 1.0)
    network = lambda x, s: predict.to_v(denoise(x, s), x, s, "x_0")  # noqa: E731
    value, aux = loss.diffusion_loss(
        network, x_0, key=KEY, schedule=cosine(), predict="v", weighting="v"
    )
    assert float(value) == pytest.approx(1.0, abs=0.02)
    alpha, _ = alpha_sigma(aux.logsnr_t)
    eps_loss, eps_aux = loss.diffusion_loss(
        network, x_0, key=KEY, schedule=cosine(), predict="v", weighting="eps"
    )
    # |eps error|^2 = alpha^2 |v error|^2
    np.testing.assert_allclose(eps_aux.per_example, alpha.ravel() ** 2 * aux.per_example, rtol=1e-4)
    assert float(eps_loss) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("kind", predict.KINDS)
def test_the_target_does_not_depend_on_the_parameters(kind):
    """d loss / d w = 2 E[(w x_t - target) x_t]: holds only if the target is constant in w."""
    x_0 = images(0)

    def value(w):
        return loss.diffusion_loss(
            lambda x, _: w * x, x_0, key=KEY, schedule=cosine(), predict=kind, weighting=kind
        )[0]

    # a quadratic in w whose curvature is E|x_t|^2 whatever w: were the target a function of w, not
    curvature = [float(jax.grad(jax.grad(value))(w)) for w in (0.0, 1.0, 3.0)]
    np.testing.assert_allclose(curvature, curvature[0], rtol=1e-5)
    assert curvature[0] == pytest.approx(2.0, rel=0.2)


def test_weights_and_gradients_are_finite_for_every_pair_and_schedule():
    x_0 = images(0)
    for kind in predict.KINDS:
        for weighting in predict.KINDS:
            value, slope = jax.value_and_grad(
                lambda w, k=kind, g=weighting: loss.diffusion_loss(
                    lambda x, _: w * x, x_0, key=KEY, schedule=cosine(), predict=k, weighting=g
                )[0]
            )(0.5)
            assert np.isfinite(value)
            assert np.isfinite(slope)


def test_time_and_noise_are_drawn_from_different_keys():
    seen = {}

    def network(x_t, logsnr_t):
        seen["x_t"], seen["logsnr"] = x_t, logsnr_t
        return x_t

    loss.diffusion_loss(network, jnp.zeros((4096, 1, 1, 1)), key=KEY, schedule=cosine())
    _, sigma = alpha_sigma(seen["logsnr"])
    eps = (seen["x_t"] / sigma).ravel()
    assert abs(np.corrcoef(eps, seen["logsnr"])[0, 1]) < 0.05
    assert abs(np.corrcoef(np.abs(eps), seen["logsnr"])[0, 1]) < 0.05
