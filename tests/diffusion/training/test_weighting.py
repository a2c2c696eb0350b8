import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import predict, schedule, table
from diffjax.diffusion.training import loss, times, weighting
from tests.diffusion.helpers import images

KEY = jax.random.key(5)
LOGSNR = np.linspace(-12.0, 12.0, 97)
SNR = np.exp(LOGSNR)
ZERO_TERMINAL = table.discrete(
    table.logsnr_table(table.zero_terminal_snr(table.linear_betas(1e-4, 0.02, 100)))
)
SCHEDULES = {
    "cosine": schedule.cosine(),
    "linear": schedule.linear(),
    "zero_terminal": ZERO_TERMINAL,
}


def weight(name, kind):
    return np.asarray(weighting.relative_weight(name, kind, jnp.asarray(LOGSNR, jnp.float32)))


@pytest.mark.parametrize(
    ("kind", "truth"),
    [
        ("eps", np.minimum(SNR, 5) / SNR),
        ("x_0", np.minimum(SNR, 5)),
        ("v", np.minimum(SNR, 5) / (SNR + 1)),
    ],
)
def test_min_snr_is_the_papers_for_networks_of_eps_x_0_and_v(kind, truth):
    np.testing.assert_allclose(weight("min_snr", kind), truth, rtol=1e-5)


def test_min_snr_takes_any_gamma():
    np.testing.assert_allclose(weight(weighting.min_snr(2.0), "x_0"), np.minimum(SNR, 2), rtol=1e-5)


def test_p2_is_one_over_k_plus_snr_to_the_gamma_on_the_error_in_eps():
    np.testing.assert_allclose(weight("p2", "eps"), 1 / (1 + SNR), rtol=1e-5)
    np.testing.assert_allclose(
        weight(weighting.p2(k=0.3, gamma=0.5), "eps"), (0.3 + SNR) ** -0.5, rtol=1e-5
    )


def test_sigmoid_is_that_of_the_bias_less_logsnr_on_the_error_in_eps():
    np.testing.assert_allclose(weight("sigmoid", "eps"), 1 / (1 + np.exp(LOGSNR - 2)), rtol=1e-5)
    # for a network of x_0 that is e^b sigmoid(logsnr - b)
    truth = np.exp(-1) / (1 + np.exp(-1 - LOGSNR))
    np.testing.assert_allclose(weight(weighting.sigmoid(-1.0), "x_0"), truth, rtol=1e-5)


def test_edm_is_lambda_of_sigma_on_the_error_in_x_0():
    """(s^2 + s_d^2) / (s s_d)^2, Karras et al. 2022, table 1; s = sigma / alpha."""
    s, data = np.exp(-LOGSNR / 2), 0.5
    truth = (s**2 + data**2) / (s * data) ** 2
    np.testing.assert_allclose(weight("edm", "x_0"), truth, rtol=1e-5)


def test_the_kinds_are_snr_snr_plus_one_and_one_on_the_error_in_x_0():
    """Salimans & Ho 2022, sec. 4; flow: (1 + sigma / alpha)^2 of the error in eps."""
    truth = {
        "eps": SNR,
        "v": 1 + SNR,
        "x_0": np.ones_like(SNR),
        "score": SNR * (1 + SNR),
        "flow": (1 + np.sqrt(SNR)) ** 2,
    }
    for kind, wanted in truth.items():
        np.testing.assert_allclose(weight(kind, "x_0"), wanted, rtol=1e-5, err_msg=kind)


def test_a_weighting_in_the_networks_own_space_is_one():
    for kind in predict.KINDS:
        np.testing.assert_array_equal(weight(kind, kind), 1.0)


def test_weights_are_finite_at_every_level_infinite_ones_included():
    """With a terminal SNR of 0, min-SNR over SNR reads 0 / 0; the limit is 1."""
    levels = jnp.array([-jnp.inf, -1e4, -90.0, -40.0, -30.0, 0.0, 40.0, 90.0, jnp.inf])
    for name in weighting.NAMES:
        for kind in predict.KINDS:
            got = weighting.relative_weight(name, kind, levels)
            assert np.all(np.isfinite(got)), (name, kind)
            _, slope = jax.jvp(
                functools.partial(weighting.relative_weight, name, kind),
                (levels,),
                (jnp.ones_like(levels),),
            )
            assert np.all(np.isfinite(slope)), (name, kind)
    assert float(weighting.relative_weight("min_snr", "eps", levels)[0]) == pytest.approx(1.0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_weights_are_finite_at_both_ends_of_a_schedule_over_logsnr_too(name):
    ends = jnp.array([0.0, 1.0])
    slope = schedule.dlogsnr_du(SCHEDULES[name], ends)
    for how in weighting.NAMES:
        for kind in predict.KINDS:
            got = weighting.relative_weight(how, kind, SCHEDULES[name](ends)) * slope
            assert np.all(np.isfinite(got)), (how, kind)


@pytest.mark.parametrize("kind", predict.KINDS)
def test_loss_and_gradient_are_finite_from_clean_to_zero_terminal_snr(kind):
    x_0 = images(0, (3, 4, 4, 3))
    ends = lambda key, num: times.Times(jnp.linspace(0.0, 1.0, num), jnp.ones(num))  # noqa: E731

    @jax.jit
    @jax.value_and_grad
    def total(w):
        values = [
            loss.diffusion_loss(
                lambda x, _: w * x,
                x_0,
                key=KEY,
                schedule=ZERO_TERMINAL,
                predict=kind,
                weighting=how,
                over="logsnr",
                times=ends,
            )[0]
            for how in weighting.NAMES
        ]
        # logs, so that one large term does not hide another
        return sum(jnp.log(value) for value in values)

    value, slope = total(0.5)
    assert np.isfinite(value)
    assert np.isfinite(slope)


def test_a_function_of_logsnr_is_a_weighting():
    """Three times min-SNR is three times the loss."""
    x_0 = images(0)
    options = dict(key=KEY, schedule=schedule.cosine(), predict="v")
    network = lambda x, _: 0.3 * x  # noqa: E731
    named, _ = loss.diffusion_loss(network, x_0, weighting="min_snr", **options)
    tripled, _ = loss.diffusion_loss(
        network, x_0, weighting=lambda s: jnp.minimum(s, np.log(5)) + np.log(3), **options
    )
    assert float(tripled) == pytest.approx(3 * float(named), rel=1e-5)


def test_an_unknown_weighting_is_named_with_those_allowed():
    with pytest.raises(
        ValueError, match=r"weighting='snr'.*eps, v.*min_snr, truncated_snr, p2, sigmoid"
    ):
        weighting.log_weight("snr", jnp.zeros(2))


@pytest.mark.parametrize(
    ("make", "named"), [(lambda: weighting.min_snr(0.0), "gamma"), (lambda: weighting.p2(0.0), "k")]
)
def test_a_constant_outside_its_range_is_named(make, named):
    with pytest.raises(ValueError, match=f"{named}=0.0: .*above 0"):
        make()
