"""Guidance on data whose guided answer is known: Gaussians, mixtures, a measured image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core.types import Guess
from diffjax.diffusion import predict
from diffjax.diffusion.process import alpha_sigma
from diffjax.diffusion.sampling import guidance, sampler
from tests.diffusion import oracles
from tests.diffusion.helpers import SHAPES, constant_denoiser, gaussian_denoiser, images

LOGSNR = jnp.linspace(-3.0, 3.0, 4)
LEVELS = [-12.0, -2.0, 0.5, 9.0]


# Powers of two, so that fused or not they round alike.
def conditional(x_t, logsnr_t):
    return 0.5 * x_t + 1.0


def unconditional(x_t, logsnr_t):
    return 0.125 * x_t - 1.0


def both(x_t, logsnr_t):
    b = x_t.shape[0] // 2
    halves = conditional(x_t[:b], logsnr_t[:b]), unconditional(x_t[b:], logsnr_t[b:])
    return jnp.concatenate(halves)


def log_normal(x, mean, variance):
    """[b], up to a constant that does not depend on x."""
    return -0.5 * jnp.sum((x - mean) ** 2 / variance, axis=(1, 2, 3))


def refuse(*_):
    raise AssertionError("this network must not run")


def counted(denoise):
    """The denoiser and the list of its calls: one entry for each time it ran, also under jit."""
    ran = []

    def run(x_t, logsnr_t):
        jax.debug.callback(lambda: ran.append(1))
        return denoise(x_t, logsnr_t)

    return run, ran


# classifier-free


@pytest.mark.parametrize("weight", [1.0, 1])
def test_weight_one_is_conditional_and_runs_the_network_once(weight):
    guided = guidance.classifier_free(conditional, refuse, weight)
    np.testing.assert_array_equal(guided(images(0), LOGSNR), conditional(images(0), LOGSNR))


@pytest.mark.parametrize("weight", [0.0, 0])
def test_weight_zero_is_unconditional_and_runs_the_network_once(weight):
    guided = guidance.classifier_free(refuse, unconditional, weight)
    np.testing.assert_array_equal(guided(images(0), LOGSNR), unconditional(images(0), LOGSNR))


def test_weights_one_and_zero_are_exact_in_an_array_too():
    guided = guidance.classifier_free(conditional, unconditional, jnp.array([0.0, 1.0, 0.0, 1.0]))
    got = guided(images(0), LOGSNR)
    np.testing.assert_array_equal(got[::2], unconditional(images(0), LOGSNR)[::2])
    np.testing.assert_array_equal(got[1::2], conditional(images(0), LOGSNR)[1::2])


@pytest.mark.parametrize("to", [predict.to_eps, predict.to_v, predict.to_score])
def test_guiding_x_0_guides_eps_v_and_score_alike(to):
    x_t = images(0)
    guided = jax.jit(guidance.classifier_free(conditional, unconditional, 3.0))(x_t, LOGSNR)
    as_kind = lambda x_0: to(x_0, x_t, LOGSNR, "x_0")  # noqa: E731
    paper = 3.0 * as_kind(conditional(x_t, LOGSNR)) - 2.0 * as_kind(unconditional(x_t, LOGSNR))
    np.testing.assert_allclose(as_kind(guided), paper, atol=1e-4)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("weight", [0.4, 2.5])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_guidance_between_gaussians_has_the_score_of_their_weighted_product(weight, level, shape):
    """N(m_1, c_1)^w N(m_0, c_0)^(1 - w) at the level: precisions add, with their weights."""
    (m_1, c_1), (m_0, c_0) = (0.7, 0.09), (-0.4, 0.25)
    logsnr_t = jnp.full((4,), level)
    alpha, sigma = (np.float64(part[0].item()) for part in alpha_sigma(logsnr_t))
    p_1, p_0 = 1 / (alpha**2 * c_1 + sigma**2), 1 / (alpha**2 * c_0 + sigma**2)
    precision = weight * p_1 + (1 - weight) * p_0
    mean = alpha * (weight * p_1 * m_1 + (1 - weight) * p_0 * m_0) / precision
    guided = guidance.classifier_free(
        gaussian_denoiser(m_1, c_1), gaussian_denoiser(m_0, c_0), weight
    )
    x_t = images(0, (4, *shape))
    score = -precision * (np.asarray(x_t, np.float64) - mean)
    wanted = (np.asarray(x_t, np.float64) + sigma**2 * score) / alpha
    # float32 at the noisy end: x_t / alpha is 400 there and has to cancel
    atol = 2e-5 + 1e-6 / alpha
    np.testing.assert_allclose(jax.jit(guided)(x_t, logsnr_t), wanted, atol=atol)


def test_guidance_between_gaussians_of_one_covariance_only_moves_the_mean():
    """The prompt's N(1.2, c) against a negative prompt's N(-0.3, c): the mean goes past 1.2."""
    guided = guidance.classifier_free(
        gaussian_denoiser(1.2, 0.2), gaussian_denoiser(-0.3, 0.2), 3.0
    )
    wanted = gaussian_denoiser(3.0 * 1.2 + 2.0 * 0.3, 0.2)
    got = jax.jit(guided)(images(0), LOGSNR)
    np.testing.assert_allclose(got, wanted(images(0), LOGSNR), atol=1e-5)


def test_autoguidance_extrapolates_from_the_bad_model_through_the_good_one():
    guided = guidance.autoguidance(conditional, unconditional, 2.0)
    x_t = images(0)
    wanted = 2.0 * conditional(x_t, LOGSNR) - unconditional(x_t, LOGSNR)
    np.testing.assert_allclose(jax.jit(guided)(x_t, LOGSNR), wanted, atol=1e-6)


@pytest.mark.parametrize("weight", [1.0, 4.0, jnp.array([0.0, 1.0, 2.5, -1.0])])
def test_one_doubled_call_equals_two(weight):
    x_t = images(0)
    np.testing.assert_allclose(
        jax.jit(guidance.classifier_free_doubled(both, weight, rescale=0.7))(x_t, LOGSNR),
        jax.jit(guidance.classifier_free(conditional, unconditional, weight, rescale=0.7))(
            x_t, LOGSNR
        ),
        atol=1e-6,
    )


def test_each_image_has_its_own_weight_even_when_batch_equals_width():
    x_t, weights = images(0, (4, 4, 4, 4)), jnp.array([0.0, 1.0, 3.0, 7.5])
    together = jax.jit(guidance.classifier_free(conditional, unconditional, weights))(x_t, LOGSNR)
    for i, weight in enumerate(weights.tolist()):
        alone = guidance.classifier_free(conditional, unconditional, weight)
        np.testing.assert_allclose(
            together[i : i + 1], alone(x_t[i : i + 1], LOGSNR[i : i + 1]), atol=1e-5
        )


def test_a_weight_may_be_any_function_of_the_level():
    x_t, rising = images(0), lambda logsnr_t: 2.0 + 0.5 * logsnr_t
    of_level = guidance.classifier_free(conditional, unconditional, rising)
    by_hand = guidance.classifier_free(conditional, unconditional, 2.0 + 0.5 * LOGSNR)
    np.testing.assert_allclose(jax.jit(of_level)(x_t, LOGSNR), by_hand(x_t, LOGSNR), atol=1e-6)


def test_a_batch_split_over_devices_is_guided_as_on_one():
    """The question whether anyone needs the unconditional is asked of all devices together."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    over_devices = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    weight = guidance.interval(3.0, -1.0, 1.0)
    guided = jax.jit(guidance.classifier_free(conditional, unconditional, weight, rescale=0.7))
    for logsnr_t in (LOGSNR, jnp.full((4,), 2.0), jnp.full((4,), 0.5)):
        x_t = images(0)
        split = (jax.device_put(x, over_devices) for x in (x_t, logsnr_t))
        got = guided(*split)
        assert got.sharding.is_equivalent_to(over_devices, got.ndim)
        np.testing.assert_allclose(got, guided(x_t, logsnr_t), atol=1e-6)


def test_a_weight_of_another_length_is_refused():
    guided = guidance.classifier_free(conditional, unconditional, lambda _: jnp.ones(3))
    with pytest.raises(ValueError, match=r"weight of shape \(3,\).*\(4,\)"):
        guided(images(0), LOGSNR)
    guided = guidance.classifier_free(conditional, unconditional, jnp.ones(3))
    with pytest.raises(Exception, match=r"(?i)type-check|shape|parameter"):
        guided(images(0), LOGSNR)


# composition


def test_composed_gaussians_of_one_covariance_add_their_shifts():
    """m = m_0 + sum_i w_i (m_i - m_0), the negative prompt with a negative weight."""
    got = guidance.composed(
        gaussian_denoiser(0.1, 0.3),
        (gaussian_denoiser(0.9, 0.3), 2.0),
        (gaussian_denoiser(-0.5, 0.3), -1.5),
        (gaussian_denoiser(0.4, 0.3), jnp.full((4,), 0.5)),
    )
    wanted = gaussian_denoiser(0.1 + 2.0 * 0.8 - 1.5 * -0.6 + 0.5 * 0.3, 0.3)
    x_t = images(0)
    np.testing.assert_allclose(jax.jit(got)(x_t, LOGSNR), wanted(x_t, LOGSNR), atol=1e-5)


def test_one_term_composed_is_classifier_free():
    x_t = images(0)
    np.testing.assert_allclose(
        jax.jit(guidance.composed(unconditional, (conditional, 3.5)))(x_t, LOGSNR),
        guidance.classifier_free(conditional, unconditional, 3.5)(x_t, LOGSNR),
        atol=1e-5,
    )


def test_composing_nothing_is_refused():
    with pytest.raises(ValueError, match="terms"):
        guidance.composed(unconditional)


# the interval


def test_outside_the_interval_the_conditional_is_untouched_and_inside_it_is_guided():
    """In one batch of many levels, the ends of the interval included."""
    logsnr_t = jnp.array([-2.0, -1.0, 0.0, 1.0, 1.5])
    x_t = images(0, (5, 4, 5, 3))
    weight = guidance.interval(3.0, -1.0, 1.0)
    got = jax.jit(guidance.classifier_free(conditional, unconditional, weight))(x_t, logsnr_t)
    full = guidance.classifier_free(conditional, unconditional, 3.0)(x_t, logsnr_t)
    plain = conditional(x_t, logsnr_t)
    np.testing.assert_array_equal(got[0], plain[0])
    np.testing.assert_array_equal(got[4], plain[4])
    np.testing.assert_allclose(got[1:4], full[1:4], atol=1e-6)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_outside_the_interval_the_unconditional_is_not_evaluated(rescale):
    """One compiled loop over eight levels, three of them inside."""
    levels = jnp.linspace(-7.0, 7.0, 8)
    weight = guidance.interval(3.0, -4.0, 2.0)
    first, ran_first = counted(conditional)
    other, ran_other = counted(unconditional)
    guided = guidance.classifier_free(first, other, weight, rescale=rescale)
    x_t = images(0)
    at_level = lambda level: guided(x_t, jnp.full((4,), level))  # noqa: E731
    got = jax.block_until_ready(jax.jit(lambda: jax.lax.map(at_level, levels))())
    jax.effects_barrier()
    assert len(ran_first) == 8
    assert len(ran_other) == 3
    inside = [2, 3, 4]
    for i in range(8):
        same = np.array_equal(got[i], conditional(x_t, levels))
        assert same == (i not in inside), i


def test_outside_the_interval_composed_and_classifier_guidance_evaluate_nothing_more():
    weight = guidance.interval(2.0, -1.0, 1.0, outside=0.0)
    term, ran_term = counted(conditional)
    log_prob, ran_log_prob = counted(lambda x_t, logsnr_t: log_normal(x_t, 0.3, 1.0))
    x_t = images(0)
    for level, runs in ((-2.0, 0), (2.0, 0), (0.5, 1)):
        logsnr_t = jnp.full((4,), level)
        for guided, ran in (
            (guidance.composed(unconditional, (term, weight)), ran_term),
            (guidance.classifier_guidance(unconditional, log_prob, weight), ran_log_prob),
        ):
            ran.clear()
            got = jax.block_until_ready(jax.jit(guided)(x_t, logsnr_t))
            jax.effects_barrier()
            assert len(ran) == runs
            assert np.array_equal(got, unconditional(x_t, logsnr_t)) == (runs == 0)


def test_an_interval_may_hold_a_weight_per_image_or_of_the_level():
    logsnr_t = jnp.array([-2.0, 0.0, 0.5, 2.0])
    per_row = guidance.interval(jnp.array([2.0, 3.0, 4.0, 5.0]), -1.0, 1.0)
    np.testing.assert_array_equal(per_row(logsnr_t), [1.0, 3.0, 4.0, 1.0])
    of_level = guidance.interval(lambda logsnr_t: 2.0 * logsnr_t, -1.0, 1.0, outside=0.0)
    np.testing.assert_array_equal(of_level(logsnr_t), [0.0, 0.0, 1.0, 0.0])


def test_an_interval_of_sigma_is_that_of_log_snr():
    """EDM2's (0.28, 2.9]: a sigma of 1 is inside, 0.2 and 3 are not."""
    weight = guidance.interval(2.0, -2 * np.log(2.9), -2 * np.log(0.28))
    sigma = jnp.array([0.2, 0.3, 1.0, 2.8, 3.0])
    np.testing.assert_array_equal(weight(-2 * jnp.log(sigma)), [1.0, 2.0, 2.0, 2.0, 1.0])


def test_an_interval_the_wrong_way_round_is_refused():
    with pytest.raises(ValueError, match=r"lo=2.0, hi=-1.0"):
        guidance.interval(3.0, 2.0, -1.0)


# rescale


def deviation(x):
    return np.std(np.asarray(x, np.float64), axis=(1, 2, 3))


@pytest.mark.parametrize("kind", predict.KINDS)
def test_a_full_rescale_gives_each_image_the_conditionals_deviation(kind):
    x_t = images(0, (4, 4, 4, 4)) * jnp.array([0.5, 1.0, 2.0, 3.0])[:, None, None, None]
    guided = guidance.classifier_free(conditional, unconditional, 5.0, rescale=1.0, kind=kind)
    as_kind = lambda x_0: predict.convert(x_0, x_t, LOGSNR, "x_0", kind)  # noqa: E731
    got = as_kind(jax.jit(guided)(x_t, LOGSNR))
    wanted = as_kind(conditional(x_t, LOGSNR))
    np.testing.assert_allclose(deviation(got), deviation(wanted), rtol=1e-4)
    plain = as_kind(guidance.classifier_free(conditional, unconditional, 5.0)(x_t, LOGSNR))
    assert np.all(np.abs(deviation(plain) / deviation(wanted) - 1) > 0.02)


@pytest.mark.parametrize("kind", ["x_0", "eps", "v"])
def test_rescale_is_the_papers_blend_of_the_two_predictions(kind):
    """Lin et al. 2023, eq. 15 and 16, in float64, at 0.7."""
    x_t = images(0)
    as_kind = lambda x_0: np.asarray(  # noqa: E731
        predict.convert(x_0, x_t, LOGSNR, "x_0", kind), np.float64
    )
    positive = as_kind(conditional(x_t, LOGSNR))
    cfg = as_kind(guidance.classifier_free(conditional, unconditional, 4.0)(x_t, LOGSNR))
    ratio = (deviation(positive) / deviation(cfg))[:, None, None, None]
    wanted = 0.7 * cfg * ratio + 0.3 * cfg
    guided = guidance.classifier_free(conditional, unconditional, 4.0, rescale=0.7, kind=kind)
    got = as_kind(jax.jit(guided)(x_t, LOGSNR))
    np.testing.assert_allclose(got, wanted, rtol=5e-6, atol=2e-5)


def test_rescale_by_nothing_is_no_rescale():
    x_t = images(0)
    for weight in (0.0, 3.0):
        plain = guidance.classifier_free(conditional, unconditional, weight)
        zero = guidance.classifier_free(conditional, unconditional, weight, rescale=0.0, kind="v")
        np.testing.assert_array_equal(zero(x_t, LOGSNR), plain(x_t, LOGSNR))


def test_rescale_reaches_the_unconditional_at_weight_zero():
    x_t = images(0)
    got = guidance.classifier_free(conditional, unconditional, 0.0, rescale=1.0)(x_t, LOGSNR)
    # deviations 0.5 and 0.125 of x_t's
    np.testing.assert_allclose(got, 4.0 * unconditional(x_t, LOGSNR), rtol=1e-5)


def test_an_image_of_one_value_has_no_deviation_to_match():
    flat = guidance.classifier_free(
        constant_denoiser(0.5), constant_denoiser(0.25), 2.0, rescale=1.0
    )
    np.testing.assert_allclose(flat(images(0), LOGSNR), 0.75, atol=1e-6)


@pytest.mark.parametrize("make", [guidance.classifier_free, guidance.classifier_free_doubled])
def test_an_unusable_rescale_is_refused(make):
    denoisers = (conditional, unconditional)[: 2 if make is guidance.classifier_free else 1]
    with pytest.raises(ValueError, match=r"rescale=7.*to 1"):
        make(*denoisers, 3.0, rescale=7.0)
    with pytest.raises(ValueError, match=r"kind='w'.*eps"):
        make(*denoisers, 3.0, rescale=0.7, kind="w")


# gradients of log-probabilities


TWO = oracles.mixture(
    np.random.default_rng(1).normal(size=(2, 2, 3, 1)), np.array([0.05, 0.2]), [0.3, 0.7]
)
ALONE = [oracles.gaussian(TWO.means[y], np.full(6, c)) for y, c in enumerate((0.05, 0.2))]


def log_class(y):
    """log p(y | x_t) of the mixture, by Bayes' rule at the level."""
    log_prior = float(np.log(TWO.weights[y]))
    return lambda x_t, logsnr_t: (
        log_prior + ALONE[y].log_density(x_t, logsnr_t) - TWO.log_density(x_t, logsnr_t)
    )


@pytest.mark.parametrize("y", [0, 1])
@pytest.mark.parametrize("level", LEVELS)
def test_the_exact_classifier_at_weight_one_makes_the_exact_conditional_denoiser(level, y):
    with jax.enable_x64(True):
        x_t = jax.random.normal(jax.random.key(0), (4, 2, 3, 1), jnp.float64)
        logsnr_t = jnp.full((4,), level, jnp.float64)
        guided = guidance.classifier_guidance(TWO.denoise, log_class(y), 1.0)
        got = jax.jit(guided)(x_t, logsnr_t)
        np.testing.assert_allclose(got, ALONE[y].denoise(x_t, logsnr_t), atol=1e-8)
        assert np.abs(got - TWO.denoise(x_t, logsnr_t)).max() > 1e-3 or level > 5


def test_classifier_guidance_shifts_eps_by_sigma_times_the_gradient():
    """eps_hat - w sigma_t grad log p  (Dhariwal & Nichol 2021, alg. 2), the weight per image."""
    x_t, weights = images(0), jnp.array([0.0, 1.0, 2.0, 10.0])
    log_prob = lambda x, logsnr_t: log_normal(x, 0.3, 2.0)  # noqa: E731
    guided = guidance.classifier_guidance(unconditional, log_prob, weights)
    as_eps = lambda x_0: predict.to_eps(x_0, x_t, LOGSNR, "x_0")  # noqa: E731
    _, sigma_t = alpha_sigma(LOGSNR)
    gradient = -(x_t - 0.3) / 2.0
    wanted = as_eps(unconditional(x_t, LOGSNR)) - weights[:, None, None, None] * sigma_t * gradient
    np.testing.assert_allclose(as_eps(jax.jit(guided)(x_t, LOGSNR)), wanted, atol=2e-5)


@pytest.mark.parametrize("make", [guidance.classifier_guidance, guidance.reconstruction_guidance])
def test_a_gradient_of_weight_zero_is_never_taken(make):
    guided = make(unconditional, refuse, 0.0)
    np.testing.assert_array_equal(guided(images(0), LOGSNR), unconditional(images(0), LOGSNR))


@pytest.mark.parametrize("level", LEVELS)
def test_reconstruction_guidance_by_a_measurement_is_the_posteriors_denoiser(level):
    """x_0 ~ N(m, c) seen as y = x_0 + N(0, r): exact where the doubt left in x_0_hat is counted."""
    m, c, r, y = 0.2, 0.3, 0.1, 0.9
    posterior_c = 1 / (1 / c + 1 / r)
    posterior_m = posterior_c * (m / c + y / r)

    def log_prob(x_0_hat, logsnr_t):
        alpha_t, sigma_t = alpha_sigma(logsnr_t)
        left = c * sigma_t**2 / (alpha_t**2 * c + sigma_t**2)
        return log_normal(x_0_hat, y, r + left)

    with jax.enable_x64(True):
        x_t = jax.random.normal(jax.random.key(0), (4, 2, 3, 1), jnp.float64)
        logsnr_t = jnp.full((4,), level, jnp.float64)
        guided = guidance.reconstruction_guidance(gaussian_denoiser(m, c), log_prob, 1.0)
        got = jax.jit(guided)(x_t, logsnr_t)
        wanted = gaussian_denoiser(posterior_m, posterior_c)(x_t, logsnr_t)
        np.testing.assert_allclose(got, wanted, atol=1e-8)


def tilted(m, c, y, r):
    """The mean and variance of the density N(x; m, c) exp(-(x - y)^2 / 2r), normalised."""
    variance = 1 / (1 / c + 1 / r)
    return variance * (m / c + y / r), variance


def likeness_to(m, c, y, r):
    """log E[exp(-(x_0 - y)^2 / 2r) | x_t] for x_0 ~ N(m, c), up to a constant of the level."""

    def log_prob(x_t, logsnr_t):
        alpha_t, sigma_t = alpha_sigma(logsnr_t, x_t)
        left = c * sigma_t**2 / (alpha_t**2 * c + sigma_t**2)
        guess = gaussian_denoiser(m, c)(x_t, logsnr_t)
        return -0.5 * jnp.sum((guess - y) ** 2 / (r + left), axis=(1, 2, 3))

    return log_prob


@pytest.mark.parametrize("level", LEVELS)
def test_guidance_by_a_quadratic_likeness_is_the_denoiser_of_the_tilted_density(level):
    m, c, r, y = 0.2, 0.3, 0.1, 0.9
    with jax.enable_x64(True):
        x_t = jax.random.normal(jax.random.key(0), (4, 2, 3, 1), jnp.float64)
        logsnr_t = jnp.full((4,), level, jnp.float64)
        denoise = gaussian_denoiser(m, c)
        guided = guidance.guided_by(denoise, likeness_to(m, c, y, r), 1.0)
        wanted = gaussian_denoiser(*tilted(m, c, y, r))(x_t, logsnr_t)
        np.testing.assert_allclose(jax.jit(guided)(x_t, logsnr_t), wanted, atol=1e-8)


def test_samples_guided_by_a_quadratic_likeness_have_the_tilted_mean_and_variance():
    m, c, r, y = -0.3, 0.4, 0.2, 0.8
    guided = guidance.guided_by(gaussian_denoiser(m, c), likeness_to(m, c, y, r), 1.0)
    x_T = jax.random.normal(jax.random.key(0), (64, 8, 8, 4))
    logsnrs = jnp.append(jnp.linspace(-12.0, 12.0, 100), jnp.inf)
    made = jax.jit(
        lambda x: sampler.sample(
            guided, x, logsnrs=logsnrs, step=sampler.by_name("heun", 0.0), key=jax.random.key(1)
        )
    )(x_T)
    mean, variance = tilted(m, c, y, r)
    assert float(made.mean()) == pytest.approx(mean, abs=0.02)
    assert float(made.var()) == pytest.approx(variance, rel=0.06)


@pytest.mark.parametrize("of_clean", [False, True])
def test_guidance_of_scale_zero_is_the_denoiser_itself(of_clean):
    assert guidance.guided_by(unconditional, refuse, 0.0, of_clean=of_clean) is unconditional


# what holds for all of them


def every(first, second):
    """Each combinator on two denoisers, of which the first sees the condition."""

    def doubled(x_t, logsnr_t):
        b = x_t.shape[0] // 2
        halves = first(x_t[:b], logsnr_t[:b]), second(x_t[b:], logsnr_t[b:])
        return jax.tree.map(lambda *rows: jnp.concatenate(rows), *halves)

    limited = guidance.interval(3.0, -1.0, 3.0)
    return {
        "classifier_free": guidance.classifier_free(first, second, 3.0),
        "off": guidance.classifier_free(first, second, 1.0),
        "rescaled": guidance.classifier_free(first, second, 3.0, rescale=0.7),
        "per image": guidance.classifier_free(first, second, jnp.array([1.0, 2.0, 8.0, 0.0])),
        "interval": guidance.classifier_free(first, second, limited),
        "doubled": guidance.classifier_free_doubled(doubled, 8.0),
        "autoguidance": guidance.autoguidance(first, second, 2.0),
        "composed": guidance.composed(second, (first, 3.0), (second, -2.0)),
    }


@pytest.mark.parametrize("name", every(conditional, unconditional))
def test_the_guided_variance_is_the_conditionals(name):
    fraction = images(7)
    first = lambda x_t, _: Guess(0.5 * x_t + 1.0, fraction[: len(x_t)])  # noqa: E731
    second = lambda x_t, _: Guess(0.125 * x_t - 1.0, -5.0 * fraction[: len(x_t)])  # noqa: E731
    got = jax.jit(every(first, second)[name])(images(0), LOGSNR)
    np.testing.assert_array_equal(got.fraction, fraction)
    plain = jax.jit(every(conditional, unconditional)[name])(images(0), LOGSNR)
    np.testing.assert_allclose(got.x_0, plain, atol=1e-6)


@pytest.mark.parametrize("make", [guidance.classifier_guidance, guidance.reconstruction_guidance])
def test_a_gradient_leaves_the_variance_alone(make):
    fraction = images(7)
    learned = lambda x_t, _: Guess(0.125 * x_t - 1.0, fraction)  # noqa: E731
    log_prob = lambda x, _: log_normal(x, 0.3, 1.0)  # noqa: E731
    got = jax.jit(make(learned, log_prob, 2.0))(images(0), LOGSNR)
    np.testing.assert_array_equal(got.fraction, fraction)
    plain = make(unconditional, log_prob, 2.0)(images(0), LOGSNR)
    np.testing.assert_allclose(got.x_0, plain, atol=1e-5)


def test_a_bad_model_need_not_learn_a_variance():
    learned = lambda x_t, _: Guess(0.5 * x_t + 1.0, images(7))  # noqa: E731
    for weight in (3.0, guidance.interval(3.0, -1.0, 1.0)):
        got = jax.jit(guidance.autoguidance(learned, unconditional, weight))(images(0), LOGSNR)
        plain = guidance.autoguidance(conditional, unconditional, weight)(images(0), LOGSNR)
        np.testing.assert_allclose(got.x_0, plain, atol=1e-6)
        np.testing.assert_array_equal(got.fraction, images(7))


@pytest.mark.parametrize("name", every(conditional, unconditional))
def test_guidance_leaves_a_perfect_model_unchanged_whatever_the_weight(name):
    x_0 = images(1)
    perfect = lambda x_t, _: x_0[: len(x_t)]  # noqa: E731
    got = jax.jit(every(perfect, perfect)[name])(images(0), LOGSNR)
    np.testing.assert_allclose(got, x_0, atol=1e-5)
