import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import guidance, predict
from tests.diffusion.helpers import images

LOGSNR = jnp.linspace(-3.0, 3.0, 4)


def conditional(x_t, logsnr_t):
    return 0.3 * x_t + 1.0


def unconditional(x_t, logsnr_t):
    return 0.1 * x_t - 1.0


def test_weight_one_is_conditional_and_runs_the_network_once():
    calls = []

    def counted(x_t, logsnr_t):
        calls.append(1)
        return unconditional(x_t, logsnr_t)

    guided = guidance.classifier_free(conditional, counted, 1.0)
    np.testing.assert_array_equal(guided(images(0), LOGSNR), conditional(images(0), LOGSNR))
    assert not calls


def test_weight_zero_is_unconditional():
    guided = guidance.classifier_free(conditional, unconditional, 0.0)
    np.testing.assert_array_equal(guided(images(0), LOGSNR), unconditional(images(0), LOGSNR))


@pytest.mark.parametrize("to", [predict.to_eps, predict.to_v])
def test_guiding_x_0_guides_eps_and_v_alike(to):
    x_t = images(0)
    guided = guidance.classifier_free(conditional, unconditional, 3.0)(x_t, LOGSNR)
    as_kind = lambda x_0: to(x_0, x_t, LOGSNR, "x_0")  # noqa: E731
    paper = 3.0 * as_kind(conditional(x_t, LOGSNR)) - 2.0 * as_kind(unconditional(x_t, LOGSNR))
    np.testing.assert_allclose(as_kind(guided), paper, atol=2e-5)


def test_one_doubled_call_equals_two():
    def both(x_t, logsnr_t):
        b = x_t.shape[0] // 2
        return jnp.concatenate(
            [conditional(x_t[:b], logsnr_t[:b]), unconditional(x_t[b:], logsnr_t[b:])]
        )

    x_t = images(0)
    np.testing.assert_allclose(
        guidance.classifier_free_doubled(both, 4.0)(x_t, LOGSNR),
        guidance.classifier_free(conditional, unconditional, 4.0)(x_t, LOGSNR),
        atol=1e-6,
    )


def test_guidance_leaves_a_perfect_model_unchanged():
    x_0 = images(1)
    perfect = lambda x_t, logsnr_t: x_0  # noqa: E731
    for weight in (1.0, 3.0, 8.0):
        guided = guidance.classifier_free(perfect, perfect, weight)
        np.testing.assert_allclose(guided(images(0), LOGSNR), x_0, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 8, 6, 3), (4, 4, 4, 3), (3, 5, 3, 3)])
def test_dynamic_threshold_equals_numpy_image_by_image(shape):
    x_0 = 3.0 * images(2, shape) * jnp.arange(1, shape[0] + 1)[:, None, None, None]
    got = guidance.dynamic_threshold(lambda x, _: x, 99.5)(x_0, jnp.zeros(shape[0]))
    for i in range(shape[0]):
        s = max(1.0, np.percentile(np.abs(np.asarray(x_0[i], np.float64)), 99.5))
        np.testing.assert_allclose(got[i], np.clip(x_0[i], -s, s) / s, atol=1e-5)
    assert float(jnp.abs(got).max()) <= 1.0


def test_dynamic_threshold_is_the_identity_inside_the_range():
    x_0 = jax.random.uniform(jax.random.key(0), (4, 8, 6, 3), minval=-1.0)
    got = guidance.dynamic_threshold(lambda x, _: x)(x_0, LOGSNR)
    np.testing.assert_array_equal(got, x_0)


def test_a_percentile_meant_as_a_fraction_of_one_hundred_is_kept_in_percent():
    """0.995 is the 0.995th percentile, never the 99.5th: s stays 1 and the image is clipped."""
    x_0 = 3.0 * images(2)
    wrong = guidance.dynamic_threshold(lambda x, _: x, 0.995)(x_0, LOGSNR)
    np.testing.assert_array_equal(wrong, jnp.clip(x_0, -1, 1))
    with pytest.raises(ValueError, match="percentile=995"):
        guidance.dynamic_threshold(lambda x, _: x, 995)


def test_static_threshold_clips():
    got = guidance.static_threshold(lambda x, _: x)(3.0 * images(2), LOGSNR)
    assert float(jnp.abs(got).max()) == 1.0
