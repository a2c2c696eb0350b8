"""Paths between prompts and pictures, through networks whose every answer is known."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.diffusion.process import alpha_sigma
from diffjax.editing import img2img, morph
from diffjax.editing.morph import Prompt
from diffjax.generation import chain
from diffjax.images import pixels
from diffjax.tasks.settings import SampleSettings
from tests.diffusion.helpers import gaussian_denoiser, images
from tests.editing.stages import stages_of

WEIGHTS = jnp.linspace(0.0, 1.0, 9)


def coloured(x_t, logsnr_t, *, text, text_mask, **told):
    """Pixels N(m, 0.01), m told by the text: the mean over the tokens that are seen."""
    seen = text_mask[:, :, None]
    mean = jnp.sum(jnp.where(seen, text, 0.0), axis=1) / jnp.sum(seen, axis=1)
    return gaussian_denoiser(mean[:, None, None], 0.01)(x_t, logsnr_t)


def grained(x_t, logsnr_t, *, low_res, **told):
    """Details N(0, 0.01) on the small picture, enlarged: they are all the noise's."""
    alpha, sigma = alpha_sigma(logsnr_t)
    gain = alpha * 0.01 / (alpha**2 * 0.01 + sigma**2)
    return low_res + gain * (x_t - alpha * low_res)


SETTINGS = SampleSettings(
    num_steps=16, sampler="ddpm", guidance_weight=2.0, threshold="none", aug_level=0.2
)
STAGES = stages_of(coloured, grained, width=3, max_tokens=4, **dataclasses.asdict(SETTINGS))


def prompt(seed, length):
    mask = jnp.arange(4)[None] < length
    text = images(seed, (1, 4, 3, 1))[..., 0]
    text = 0.2 * text / jnp.linalg.norm(text, axis=-1, keepdims=True)
    return Prompt(jnp.where(mask[:, :, None], text, 0.0), mask)


def no_prompt():
    columns = img2img.null_columns(STAGES[0].task, 1)
    return Prompt(columns["text"], columns["text_mask"])


SHORT, LONG = prompt(0, 2), prompt(1, 4)


def test_the_path_of_the_text_ends_at_its_prompts_and_keeps_to_great_circles():
    text, mask = morph.morphed_text(SHORT, LONG, WEIGHTS)
    for i, end in ((0, SHORT), (8, LONG)):
        np.testing.assert_array_equal(text[i], end.text[0])
        np.testing.assert_array_equal(mask[i], end.mask[0])
    assert mask[1:-1].all()
    # the shorter goes on with its last token; half-way each token is at half of the angle
    a, b = np.asarray(SHORT.text[0])[[0, 1, 1, 1]], np.asarray(LONG.text[0])
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    half = np.sum(unit(a) * unit(text[4]), -1)
    np.testing.assert_allclose(half, np.cos(np.arccos(np.sum(unit(a) * unit(b), -1)) / 2), 1e-4)
    steps = np.abs(np.diff(text[1:-1], axis=0)).max(axis=(1, 2))
    assert steps.max() < 2 * steps.min()


def test_between_no_prompt_and_one_every_number_is_finite():
    nothing = no_prompt()
    for pair in ((nothing, nothing), (nothing, LONG), (LONG, nothing)):
        text, mask = morph.morphed_text(*pair, WEIGHTS)
        assert np.isfinite(text).all()
        assert mask.any(axis=1).all()


def test_a_path_with_one_seed_begins_and_ends_with_the_pictures_of_its_prompts():
    frames = morph.between_prompts(STAGES, SHORT, LONG, WEIGHTS, seeds=(3, 3))
    for i, end in ((0, SHORT), (8, LONG)):
        wanted = chain.generate(STAGES, chain.prompt_columns(*end), seeds=jnp.array([3]))
        for frame, want in zip(frames, wanted, strict=True):
            np.testing.assert_allclose(frame[i], want[0], atol=1e-5)


def test_a_path_between_seeds_moves_in_even_steps():
    """Same prompt, other noise: no frame jumps, and none stands still."""
    with pytest.raises(ValueError, match=r"sampler='ddpm'.*such as ddim"):
        morph.between_prompts(STAGES[:1], LONG, LONG, WEIGHTS, seeds=(3, 4))
    settings = dataclasses.replace(SETTINGS, sampler="ddim")
    still = [dataclasses.replace(STAGES[0], settings=settings)]
    (frames,) = morph.between_prompts(still, LONG, LONG, WEIGHTS, seeds=(3, 4))
    (last,) = chain.generate(still, chain.prompt_columns(*LONG), seeds=jnp.array([4]))
    np.testing.assert_allclose(frames[-1], last[0], atol=1e-5)
    steps = np.sqrt(np.mean(np.diff(np.asarray(frames), axis=0) ** 2, axis=(1, 2, 3)))
    assert steps.min() > 0.005
    assert steps.max() < 1.5 * steps.min()
    assert float(jnp.sqrt(jnp.mean((frames[0] - frames[-1]) ** 2))) > 2 * steps.max()


@pytest.mark.slow
def test_a_path_between_two_pictures_begins_and_ends_with_them():
    """Through the noises of both stages; exact in the limit of short steps."""
    stages = [
        dataclasses.replace(t, settings=dataclasses.replace(SETTINGS, num_steps=200))
        for t in STAGES
    ]
    low = jnp.clip(0.3 * images(5, (2, 4, 4, 3)), -0.9, 0.9)
    grain = 0.1 * images(6, (2, 16, 16, 3))

    pictures = jnp.clip(pixels.resize(low, 16, 16) + grain, -1, 1)
    ends = (no_prompt(),) * 2
    noises = morph.noises_of(stages, *ends, pictures, seed=0, level=0.0)
    for noise in noises:
        assert noise.shape[0] == 2
    _, large = morph.between_pictures(stages, *ends, noises, jnp.array([0.0, 1.0]), seed=0)
    assert float(jnp.sqrt(jnp.mean((large - pictures) ** 2))) < 0.03
    with pytest.raises(ValueError, match="want two of 16 px"):
        morph.noises_of(stages, *ends, pictures[:, :4, :4], seed=0)


def test_the_way_back_from_a_picture_is_the_flow_of_the_data():
    """The flow of N(0, v) divides x_t by its deviation: x_T = x_t / sqrt(alpha^2 v + sigma^2)."""
    picture = jnp.clip(0.1 * images(7, (2, 4, 4, 3)), -0.9, 0.9)
    ends = (no_prompt(),) * 2
    stages = [dataclasses.replace(STAGES[0], settings=dataclasses.replace(SETTINGS, num_steps=256))]
    keys = rng.stream(rng.stream(rng.per_example(jnp.array([1, 1])), "base"), "path")
    eps = rng.normal(keys, picture.shape)
    level = 0.125
    (noise,) = morph.noises_of(stages, *ends, picture, seed=1, level=level)
    alpha, sigma = np.cos(level * np.pi / 2), np.sin(level * np.pi / 2)
    want = (alpha * picture + sigma * eps) / np.sqrt(alpha**2 * 0.01 + sigma**2)
    np.testing.assert_allclose(noise, want, atol=0.03)
    with pytest.raises(ValueError, match="level=1"):
        morph.noises_of(stages, *ends, picture, seed=1, level=1.0)


def test_a_leap_is_spread_over_the_frames():
    """A path that stands, leaps as a steep sigmoid does, and stands: in equal steps, twice over."""
    path = lambda w: (1 / (1 + np.exp(-60 * (w - 0.61))))[:, None, None]  # noqa: E731
    weights = np.linspace(0, 1, 24, dtype=np.float32)
    longest = [np.diff(path(weights)[:, 0, 0]).max()]
    for _ in range(2):
        weights = morph.even_weights(weights, path(weights))
        longest.append(np.diff(path(weights)[:, 0, 0]).max())
    assert (weights[0], weights[-1]) == (0, 1)
    assert (np.diff(weights) > 0).all()
    assert longest[0] > 0.4
    assert longest[2] < 1.5 / 23


def test_a_path_starts_from_a_base_stage():
    with pytest.raises(ValueError, match="stage sr starts from a picture"):
        morph.between_prompts(STAGES[1:], SHORT, LONG, WEIGHTS, seeds=(0, 0))
