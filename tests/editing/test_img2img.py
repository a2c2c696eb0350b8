"""SDEdit and variations through networks whose every answer is known in closed form."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion.process import alpha_sigma
from diffjax.editing import img2img
from diffjax.generation import chain
from diffjax.tasks.conditions import shrink
from tests.diffusion.helpers import images
from tests.editing.stages import GAUSSIAN, SEEDS, VARIANCE, no_text


def kept(logsnr):
    """How much of a pixel the flow keeps from q(x_t | x_0) on, for N(0, VARIANCE).

    The flow of a Gaussian scales x_t to the data's deviation: alpha x_0 becomes
    x_0 alpha sqrt(v / (alpha^2 v + sigma^2)).
    """
    alpha, sigma = (float(part.item()) for part in alpha_sigma(jnp.full(1, logsnr)))
    return alpha * np.sqrt(VARIANCE / (alpha**2 * VARIANCE + sigma**2))


@pytest.mark.parametrize("strength", [0.2, 0.5])
def test_an_edit_keeps_as_much_of_the_picture_as_its_strength_says(strength):
    """And is itself a draw of the data: the deviation stays."""
    picture = jnp.clip(0.3 * images(3, (6, 16, 16, 3)), -1, 1)
    answers = img2img.img2img(GAUSSIAN, no_text(6), picture=picture, strength=strength, seeds=SEEDS)
    rungs = img2img.ladders(GAUSSIAN, strength)
    for part, answer, ladder in zip((shrink(picture, 4), picture), answers, rungs, strict=True):
        slope = float(jnp.sum(part * answer) / jnp.sum(part**2))
        assert slope == pytest.approx(
            kept(float(ladder[0])), abs=0.12 if len(part[0]) < 9 else 0.03
        )
    assert float(answers[1].std()) == pytest.approx(0.3, rel=0.06)


def test_later_stages_start_where_the_first_one_hides_as_much():
    """Noise of 4 x 4 pixels averages to a quarter: their logsnr starts 2 log 4 lower."""
    small, large = img2img.ladders(GAUSSIAN, 0.4)
    want = GAUSSIAN[0].task.schedule(jnp.float32(0.4))
    assert float(small[0]) == pytest.approx(float(want), abs=1e-3)
    assert float(large[0]) == pytest.approx(float(want) - 2 * np.log(4), abs=1e-3)
    assert small.shape == large.shape == (49,)
    assert jnp.isposinf(large[-1])
    assert bool(jnp.all(jnp.diff(large) > 0))
    for strength in (0.0, -0.1, 1.01, float("nan")):
        with pytest.raises(ValueError, match="strength="):
            img2img.ladders(GAUSSIAN, strength)


def test_at_full_strength_nothing_is_left_of_the_picture_and_near_zero_all():
    pictures = jnp.tanh(images(4, (6, 16, 16, 3)))
    edit = functools.partial(img2img.img2img, GAUSSIAN, no_text(6), seeds=SEEDS)
    fresh = chain.generate(GAUSSIAN, no_text(6), seeds=SEEDS)
    for a, b in zip(edit(picture=pictures, strength=1.0), fresh, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)
    _, same = edit(picture=pictures * 0.3, strength=0.002)
    np.testing.assert_allclose(same, pictures * 0.3, atol=0.08)


def test_a_variation_needs_no_prompt_and_no_guidance():
    picture = jnp.clip(0.3 * images(3, (6, 16, 16, 3)), -1, 1)
    guided = [
        dataclasses.replace(t, settings=dataclasses.replace(t.settings, guidance_weight=5.0))
        for t in GAUSSIAN
    ]
    how = dict(picture=picture, strength=0.5, seeds=SEEDS)
    _, a = img2img.vary(guided, no_text(6), **how)
    _, b = img2img.img2img(GAUSSIAN, no_text(6), **how)
    np.testing.assert_array_equal(a, b)
    assert float(jnp.abs(a[0] - a[1]).max()) > 0.1
