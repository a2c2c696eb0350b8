import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.tasks import sampling
from diffjax.tasks.denoising import Condition, init_params
from diffjax.tasks.sampling import SampleSettings, TrainedStage
from tests.diffusion.helpers import images
from tests.tasks.test_denoising import BASE, KEY, SR

SETTINGS = SampleSettings(num_steps=2, guidance_weight=3.0, aug_level=0.2)
TEXT = images(1, (4, 6, 4, 1))[..., 0]
MASK = jnp.arange(6)[None, :] < jnp.array([3, 6, 2, 5])[:, None]


@pytest.fixture(scope="module")
def trained():
    """Two stages that fit, 16 -> 32 px, with parameters moved off their zeros."""
    out = []
    for the_stage in (BASE, dataclasses.replace(SR, low_res_px=16, size_px=32)):
        params = jax.jit(lambda key, s=the_stage: init_params(s, key))(KEY)
        params = jax.tree.map(lambda p: p + 0.05, params)
        out.append(TrainedStage(the_stage, params, SETTINGS))
    return out


def test_every_stage_gives_its_picture_in_range(trained):
    small, large = sampling.generate(trained, TEXT, MASK, seeds=jnp.arange(4))
    assert small.shape == (4, 16, 16, 3)
    assert large.shape == (4, 32, 32, 3)
    for picture in (small, large):
        assert float(jnp.abs(picture).max()) <= 1.0
        assert float(picture.std()) > 0.01


def test_a_picture_depends_on_its_prompt_and_seed_and_not_on_its_place_in_the_batch(trained):
    order = jnp.array([2, 0, 3, 1])
    one = sampling.generate(trained, TEXT, MASK, seeds=jnp.arange(4))
    other = sampling.generate(trained, TEXT[order], MASK[order], seeds=jnp.arange(4)[order])
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a[order], b, atol=1e-4)


def test_swapping_two_prompts_swaps_the_pictures(trained):
    """At guidance 3, with one seed for both."""
    seeds = jnp.zeros(4, jnp.int32)
    swap = jnp.array([1, 0, 2, 3])
    one = sampling.generate(trained, TEXT, MASK, seeds=seeds)
    other = sampling.generate(trained, TEXT[swap], MASK[swap], seeds=seeds)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a[0], b[1], atol=1e-4)
        np.testing.assert_allclose(a[1], b[0], atol=1e-4)
        assert float(jnp.abs(a[0] - a[1]).max()) > 1e-3


def test_zeroing_the_embedding_makes_the_picture_independent_of_the_prompt(trained):
    from diffjax.tasks.text import null_text

    seeds = jnp.zeros(4, jnp.int32)
    text, mask = null_text(TEXT, MASK)
    pictures = sampling.generate(trained, text, mask, seeds=seeds)
    for picture in pictures:
        np.testing.assert_allclose(picture, jnp.broadcast_to(picture[:1], picture.shape), atol=1e-5)


def test_another_seed_is_another_picture_and_the_same_seed_the_same(trained):
    same = jnp.broadcast_to(TEXT[:1], TEXT.shape), jnp.broadcast_to(MASK[:1], MASK.shape)
    (picture,) = sampling.generate(trained[:1], *same, seeds=jnp.array([0, 0, 1, 2]))
    np.testing.assert_array_equal(picture[0], picture[1])
    assert float(jnp.abs(picture[0] - picture[2]).max()) > 1e-3


def test_both_halves_of_guidance_share_the_low_resolution_picture_and_its_noise(trained):
    """A network that only copies its condition is left unchanged by any weight."""
    the_stage = trained[1].stage
    seen = {}

    class Copy:
        def apply(self, variables, x_t, logsnr_t, *, low_res, aug_logsnr, **text):
            seen["rows"] = low_res.shape[0]
            return low_res

    copying = dataclasses.replace(the_stage, model=Copy(), predict="x_0")
    low_res = jnp.tanh(images(3, (4, 32, 32, 3)))
    condition = Condition(TEXT, MASK, low_res, jnp.zeros(4))
    for weight in (1.0, 3.0, 8.0):
        settings = dataclasses.replace(SETTINGS, guidance_weight=weight)
        denoise = sampling.guided_denoiser(copying, {}, condition, settings)
        np.testing.assert_allclose(denoise(low_res, jnp.zeros(4)), low_res, atol=1e-5)
        assert seen["rows"] == (4 if weight == 1 else 8)


def test_the_level_fed_is_the_level_applied(trained):
    """aug_level reaches both the noise and the number that the network is told."""
    from diffjax.diffusion.schedule import cosine

    told = {}

    class Spy:
        def apply(self, variables, x_t, logsnr_t, *, low_res, aug_logsnr, **text):
            jax.debug.callback(lambda a, s: told.update(a=a, s=s), aug_logsnr, low_res.std())
            return low_res

    spying = dataclasses.replace(trained[1].stage, model=Spy(), predict="x_0")
    settings = dataclasses.replace(SETTINGS, guidance_weight=1.0)
    deviations = []
    for level in (0.1, 0.6):
        one = TrainedStage(spying, {}, dataclasses.replace(settings, aug_level=level))
        sampling.generate([one], TEXT, MASK, seeds=jnp.arange(4), low_res=jnp.zeros((4, 16, 16, 3)))
        jax.effects_barrier()
        np.testing.assert_allclose(told["a"], cosine()(level), rtol=1e-5)
        deviations.append(float(told["s"]))
    ratio = np.sin(0.6 * np.pi / 2) / np.sin(0.1 * np.pi / 2)
    assert deviations[1] / deviations[0] == pytest.approx(ratio, rel=0.01)
