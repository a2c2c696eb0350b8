import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import predict, schedule
from diffjax.diffusion.process import alpha_sigma
from diffjax.diffusion.schedule import cosine
from diffjax.diffusion.training import loss, times
from tests.diffusion.helpers import SHAPES, gaussian_denoiser, images

KEY = jax.random.key(7)


def as_network(denoise, kind):
    """The network of `kind` that says what the denoiser says."""
    return lambda x_t, s: predict.convert(denoise(x_t, s), x_t, s, "x_0", kind)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", predict.KINDS)
def test_a_perfect_network_has_no_loss(kind, shape):
    x_0 = images(0, (4, *shape))
    # x_0 -> eps divides by sigma: stay where float32 can
    value, aux = loss.diffusion_loss(
        as_network(lambda x_t, s: x_0, kind),
        x_0,
        key=KEY,
        schedule=cosine(-8, 8),
        predict=kind,
        weighting="v",
    )
    assert float(value) < 1e-8
    assert aux.per_example.shape == (4,)


@pytest.mark.parametrize("weighting", [*predict.KINDS, "min_snr", "p2", "sigmoid"])
def test_the_loss_in_one_space_does_not_depend_on_what_the_network_predicts(weighting):
    x_0 = images(0)
    denoise = gaussian_denoiser(0.0, 1.0)
    values = [
        loss.diffusion_loss(
            as_network(denoise, kind),
            x_0,
            key=KEY,
            schedule=cosine(-8, 8),
            predict=kind,
            weighting=weighting,
        )[0]
        for kind in predict.KINDS
    ]
    np.testing.assert_allclose(values, values[0], rtol=1e-3)


@pytest.mark.parametrize("shape", [(192,), (64, 3), (96, 2), (8, 8, 3)], ids=SHAPES)
def test_the_loss_of_the_best_denoiser_of_a_gaussian_is_its_closed_form(shape):
    """x_0 ~ N(0, 1): E|v error|^2 = E[1 / sigma^2 * sigma^2] = 1 at every level."""
    x_0 = images(3, (512, *shape))
    denoise = gaussian_denoiser(0.0, 1.0)
    network = as_network(denoise, "v")
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


@pytest.mark.parametrize("make", [cosine, schedule.uniform, schedule.flow])
@pytest.mark.parametrize("weighting", ["x_0", "eps"])
def test_over_logsnr_the_loss_is_the_integral_between_the_ends_whatever_the_schedule(
    make, weighting
):
    """Data N(0, c), E|x_0 error|^2 = c / (1 + c SNR): integrals over logsnr in closed form."""
    c, low, high = 0.3, -5.0, 7.0
    each = lambda s: np.logaddexp(0.0, s + np.log(c))  # log(1 + c SNR)  # noqa: E731
    in_eps = each(high) - each(low)
    truth = {"eps": in_eps, "x_0": c * (high - low - in_eps)}[weighting]
    x_0 = np.sqrt(c) * images(3, (16384, 4, 4, 1))
    value, _ = jax.jit(
        lambda x: loss.diffusion_loss(
            as_network(gaussian_denoiser(0.0, c), "v"),
            x,
            key=KEY,
            schedule=make(low, high),
            predict="v",
            weighting=weighting,
            over="logsnr",
            times=times.stratified,
        )
    )(x_0)
    # 262,144 squared errors; relative deviations from 0.2 to 0.4 %
    assert float(value) == pytest.approx(truth, rel=0.015)


def test_over_u_two_schedules_with_the_same_ends_differ():
    """So that the test above can fail."""
    values = [
        loss.diffusion_loss(
            as_network(gaussian_denoiser(0.0, 0.3), "v"),
            np.sqrt(0.3) * images(3, (1024, 4, 4, 1)),
            key=KEY,
            schedule=make(-5.0, 7.0),
            predict="v",
            times=times.stratified,
        )[0]
        for make in (cosine, schedule.uniform)
    ]
    assert abs(values[0] - values[1]) > 0.1 * float(values[1])


def test_the_loss_is_the_mean_of_its_examples_by_the_weights_of_their_times():
    x_0 = images(0)
    drawn = times.Times(jnp.array([0.1, 0.2, 0.7, 0.9]), jnp.array([1.0, 0.5, 2.0, 4.0]))
    value, aux = loss.diffusion_loss(
        lambda x, _: 0.3 * x, x_0, key=KEY, schedule=cosine(), times=lambda key, num: drawn
    )
    np.testing.assert_allclose(aux.logsnr_t, cosine()(drawn.u))
    np.testing.assert_array_equal(aux.times.u, drawn.u)
    assert float(value) == pytest.approx(float(np.mean(drawn.weight * aux.per_example)), rel=1e-6)


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


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"predict": "epsilon"}, r"predict='epsilon': allowed are eps, v"),
        ({"weighting": "snr"}, r"weighting='snr': allowed are eps, v"),
        ({"over": "t"}, r"over='t': allowed are u, logsnr"),
    ],
)
def test_an_unknown_option_is_named_with_those_allowed(options, match):
    with pytest.raises(ValueError, match=match):
        loss.diffusion_loss(lambda x, _: x, images(0), key=KEY, schedule=cosine(), **options)
