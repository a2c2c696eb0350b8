import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.diffusion.process import alpha_sigma
from diffjax.images import pixels
from diffjax.models.efficient_unet import EfficientUNet
from diffjax.models.unet import UNet
from diffjax.tasks import denoising
from tests.diffusion.helpers import images

TINY = {"width": 16, "mults": (1, 2), "head_width": 16, "token_width": 8}
BASE = denoising.Stage("base", UNet(**TINY, num_blocks=1), 16, text_width=4, max_tokens=6)
SR = denoising.Stage(
    "sr", EfficientUNet(**TINY, num_blocks=(1, 1), attention="cross"), 32, 4, 6, low_res_px=8
)
KEY = jax.random.key(0)


def test_a_stage_starts_from_a_picture_or_from_nothing():
    assert (BASE.factor, SR.factor) == (1, 4)
    for one in (BASE, SR):
        params = jax.eval_shape(lambda key, s=one: denoising.init_params(s, key), KEY)
        assert ("aug" in params["conditioning"]) == (one is SR)


def test_what_is_shrunk_is_the_antialiased_target_and_never_the_target_itself():
    target = images(0, (2, 32, 32, 3))
    low_res = denoising.shrink(target, SR.factor)
    assert low_res.shape == (2, 8, 8, 3)
    given, _ = denoising.condition_low_res(SR, low_res, jnp.zeros(2), key=KEY)
    assert given.shape == target.shape
    # white noise has no low frequencies to speak of: the condition must not know the target
    assert float(jnp.sqrt(jnp.mean((given - target) ** 2))) > 0.8


def test_the_condition_has_the_band_limit_of_the_stage_before():
    """Shrunk again, the condition is the small picture; its own detail holds no more."""
    smooth = pixels.resize(images(0, (2, 2, 2, 3)), 32, 32)
    given, _ = denoising.condition_low_res(SR, denoising.shrink(smooth, 4), jnp.zeros(2), key=KEY)
    np.testing.assert_allclose(given[:, 8:-8, 8:-8], smooth[:, 8:-8, 8:-8], atol=0.12)
    spectrum = np.abs(np.fft.fft2(np.asarray(given)[0, :, :, 0]))
    assert spectrum[12:20, 12:20].max() < 0.02 * spectrum.max()


def test_the_noise_is_that_of_the_level_told_and_is_drawn_once():
    """Enlarging is linear: the noise of a black picture grows with sigma and nothing else."""
    low_res = jnp.zeros((64, 8, 8, 3))
    enlarged, sigmas = [], []
    for level in (0.1, 0.5, 1.0):
        given, logsnr = denoising.condition_low_res(SR, low_res, jnp.full((64,), level), key=KEY)
        enlarged.append(float(given.std()))
        sigmas.append(float(alpha_sigma(logsnr)[1][0].item()))
    np.testing.assert_allclose(np.divide(enlarged, enlarged[-1]), sigmas, rtol=1e-4)
    noise = pixels.resize(images(7, (64, 8, 8, 3)), 32, 32)
    assert enlarged[-1] == pytest.approx(float(noise.std()), rel=0.02)


def test_training_and_sampling_condition_alike():
    """One key per image (sampling) or one for all (training): the same distribution."""
    low_res, level = jnp.full((256, 8, 8, 3), 0.3), jnp.full((256,), 0.3)
    one, _ = denoising.condition_low_res(SR, low_res, level, key=KEY)
    other, _ = denoising.condition_low_res(SR, low_res, level, key=rng.per_example(jnp.arange(256)))
    assert float(one.mean()) == pytest.approx(float(other.mean()), abs=0.01)
    assert float(one.std()) == pytest.approx(float(other.std()), rel=0.02)


def test_crops_need_a_network_that_looks_at_the_text_alone():
    assert denoising.is_convolutional(SR.model)
    assert not denoising.is_convolutional(BASE.model)
    assert not denoising.is_convolutional(
        EfficientUNet(**TINY, num_blocks=(1, 1), attention="self")
    )
