"""Editing through a cascade of networks whose every answer is known in closed form."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion.process import alpha_sigma
from diffjax.editing import inpaint, upscale
from diffjax.tasks import sampling
from diffjax.tasks.denoising import Stage, shrink
from diffjax.tasks.sampling import SampleSettings, TrainedStage
from tests.diffusion.helpers import gaussian_denoiser, images

SEEDS = jnp.arange(6)
VARIANCE = 0.09


class Independent:
    """The best network for pixels that are N(0, VARIANCE), each on its own."""

    def apply(self, variables, x_t, logsnr_t, **told):
        return gaussian_denoiser(0.0, VARIANCE)(x_t, logsnr_t)


class OneColour:
    """The best network for pictures of one colour, N(0, 0.25) a channel."""

    def apply(self, variables, x_t, logsnr_t, **told):
        alpha, sigma = alpha_sigma(logsnr_t)
        mean = jnp.mean(x_t, axis=(1, 2), keepdims=True)
        noise = sigma**2 / (x_t.shape[1] * x_t.shape[2])
        return jnp.broadcast_to(alpha * 0.25 / (alpha**2 * 0.25 + noise) * mean, x_t.shape)


class Enlarged:
    """The network that knows no detail: the small picture, enlarged."""

    def apply(self, variables, x_t, logsnr_t, *, low_res, **told):
        return low_res


SETTINGS = SampleSettings(
    num_steps=16, sampler="ddpm", guidance_weight=1.0, threshold="none", aug_level=0.0
)


def stages_of(base, large, **settings):
    """Two stages, 4 -> 16 px."""
    how = dataclasses.replace(SETTINGS, **settings)
    common = dict(text_width=2, max_tokens=3, predict="x_0")
    return [
        TrainedStage(Stage("base", base, 4, **common), {}, how),
        TrainedStage(Stage("sr", large, 16, low_res_px=4, **common), {}, how),
    ]


COLOURS = stages_of(OneColour(), Enlarged())
GAUSSIAN = stages_of(Independent(), Independent(), sampler="ddim", num_steps=48)


def no_text(num):
    return inpaint.null_of(COLOURS[0].stage, num)


@functools.cache
def hole():
    """A mask that is on no edge of small pixels."""
    return jnp.zeros((6, 16, 16, 1), bool).at[:, 3:10, 5:12].set(True)


def test_nothing_under_the_mask_is_known_and_what_is_known_is_what_was_there():
    one, other = jnp.tanh(images(0, (6, 16, 16, 3))), jnp.tanh(images(1, (6, 16, 16, 3)))
    a, small = inpaint.known_pixels(one, hole(), 4)
    b, _ = inpaint.known_pixels(jnp.where(hole(), other, one), hole(), 4)
    np.testing.assert_array_equal(a, b)
    want = np.zeros((4, 4), bool)
    want[0:3, 1:3] = True  # rows 3 to 9 and columns 5 to 11 of 16, in fours
    np.testing.assert_array_equal(small[0, :, :, 0], want)
    # of a flat picture the filter's missing part is missed by nobody
    flat, _ = inpaint.known_pixels(jnp.full((6, 16, 16, 3), 0.3), hole(), 4)
    np.testing.assert_allclose(flat[:, 3], 0.3, atol=1e-6)
    np.testing.assert_allclose(flat[:, :, 0], 0.3, atol=1e-6)
    whole, _ = inpaint.known_pixels(one, jnp.zeros_like(hole()), 4)
    np.testing.assert_allclose(whole, shrink(one, 4), atol=1e-6)


@functools.cache
def painted(resample=(10, 1)):
    """Pictures of 0.8, of which a part is not known; and each is another under the mask."""
    picture = jnp.where(hole(), images(2, (6, 16, 16, 3)), 0.8)
    return picture, inpaint.inpaint(
        COLOURS, *no_text(6), picture=picture, mask=hole(), seeds=SEEDS, resample=resample
    )


def test_what_is_known_comes_out_as_it_went_in_at_every_stage():
    picture, (small, large) = painted()
    known = ~np.broadcast_to(hole(), picture.shape)
    np.testing.assert_array_equal(np.asarray(large)[known], np.asarray(picture)[known])
    np.testing.assert_allclose(small[:, 3], 0.8, atol=1e-6)
    np.testing.assert_allclose(small[:, :, [0, 3]], 0.8, atol=1e-6)


def test_what_is_painted_is_what_the_rest_asks_for():
    """Of one colour: with the rest at 0.8 the hole is 0.8, at the base and so after it.

    Seen: 0.022 away with RePaint, 0.033 with Replacement, which never looks back.
    """
    away = {}
    for resample in ((10, 1), (1, 1)):
        _, answers = painted(resample)
        away[resample[0]] = [float(jnp.sqrt(jnp.mean((x - 0.8) ** 2))) for x in answers]
    assert max(away[10]) < 0.04
    assert max(away[10]) < 0.8 * max(away[1])


def test_what_lies_under_the_mask_changes_no_bit():
    _, answers = painted()
    clean = jnp.full((6, 16, 16, 3), 0.8, jnp.float32)
    again = inpaint.inpaint(
        COLOURS, *no_text(6), picture=clean, mask=hole(), seeds=SEEDS, resample=(10, 1)
    )
    for a, b in zip(answers, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_inpainting_that_cannot_be_is_told():
    picture = jnp.zeros((1, 16, 16, 3))
    text, text_mask = no_text(1)
    paint = functools.partial(inpaint.inpaint, text=text, text_mask=text_mask, seeds=SEEDS[:1])
    with pytest.raises(ValueError, match="mask of \\(8, 16\\) for pictures of \\(16, 16\\)"):
        paint(COLOURS, picture=picture, mask=jnp.zeros((1, 8, 16, 1), bool))
    with pytest.raises(ValueError, match="pictures of \\(4, 4\\): the last stage's are 16 px"):
        paint(COLOURS, picture=picture[:, :4, :4], mask=hole()[:1])
    with pytest.raises(ValueError, match="stage sr starts from a picture"):
        paint(COLOURS[1:], picture=picture, mask=hole()[:1])


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
    answers = inpaint.img2img(
        GAUSSIAN, *no_text(6), picture=picture, strength=strength, seeds=SEEDS
    )
    rungs = inpaint.ladders(GAUSSIAN, strength)
    for part, answer, ladder in zip((shrink(picture, 4), picture), answers, rungs, strict=True):
        slope = float(jnp.sum(part * answer) / jnp.sum(part**2))
        assert slope == pytest.approx(
            kept(float(ladder[0])), abs=0.12 if len(part[0]) < 9 else 0.03
        )
    assert float(answers[1].std()) == pytest.approx(0.3, rel=0.06)


def test_later_stages_start_where_the_first_one_hides_as_much():
    """Noise of 4 x 4 pixels averages to a quarter: their logsnr starts 2 log 4 lower."""
    small, large = inpaint.ladders(GAUSSIAN, 0.4)
    want = GAUSSIAN[0].stage.schedule(jnp.float32(0.4))
    assert float(small[0]) == pytest.approx(float(want), abs=1e-3)
    assert float(large[0]) == pytest.approx(float(want) - 2 * np.log(4), abs=1e-3)
    assert small.shape == large.shape == (49,)
    assert jnp.isposinf(large[-1])
    assert bool(jnp.all(jnp.diff(large) > 0))
    for strength in (0.0, -0.1, 1.01, float("nan")):
        with pytest.raises(ValueError, match="strength="):
            inpaint.ladders(GAUSSIAN, strength)


def test_at_full_strength_nothing_is_left_of_the_picture_and_near_zero_all():
    pictures = jnp.tanh(images(4, (6, 16, 16, 3)))
    edit = functools.partial(inpaint.img2img, GAUSSIAN, *no_text(6), seeds=SEEDS)
    fresh = sampling.generate(GAUSSIAN, *no_text(6), seeds=SEEDS)
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
    _, a = inpaint.vary(guided, *no_text(6), **how)
    _, b = inpaint.img2img(GAUSSIAN, *no_text(6), **how)
    np.testing.assert_array_equal(a, b)
    assert float(jnp.abs(a[0] - a[1]).max()) > 0.1


def test_a_picture_of_the_stages_own_size_is_enlarged_as_in_the_cascade():
    small = jnp.tanh(images(5, (6, 4, 4, 3)))
    how = dict(seeds=SEEDS)
    (a,) = upscale.upscale(GAUSSIAN[1:], *no_text(6), picture=small, faithful=False, **how)
    (b,) = sampling.generate(GAUSSIAN[1:], *no_text(6), low_res=small, **how)
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 9)])
def test_any_picture_is_enlarged_by_the_stages_factor(size):
    """By a network that only enlarges: bicubically, up to its tiles' and the picture's edges."""
    from diffjax.images import pixels

    picture = jnp.tanh(images(6, (1, *size, 3)))
    how = dict(picture=picture, seeds=SEEDS[:1], faithful=False)
    (large,) = upscale.upscale(COLOURS[1:], *no_text(1), **how)
    height, width = (4 * side for side in size)
    assert large.shape == (1, height, width, 3)
    padded = upscale.at_least(picture, COLOURS[1].stage)
    want = pixels.resize(padded, *(4 * side for side in padded.shape[1:3]))
    np.testing.assert_allclose(large, jnp.clip(want, -1, 1)[:, :height, :width], atol=1e-3)
    assert upscale.num_tiles(COLOURS[1].stage, *size) == {1: 1, 9: 3}[size[1]]


def test_a_faithful_picture_keeps_its_colours_and_the_truth_stays_as_it_is():
    """Shrunk it is what it was made from, where a network that drifts would lead away."""
    large = jnp.tanh(images(7, (2, 16, 12, 3)))
    small = shrink(large, 4)
    told = lambda guess: upscale.consistent(lambda x, logsnr: guess, small, 4)(  # noqa: E731
        large, jnp.zeros(2)
    )
    np.testing.assert_allclose(told(large), large, atol=1e-6)
    np.testing.assert_allclose(told(large + 0.3), large, atol=1e-5)
    wrong = large + images(8, (2, 16, 12, 3))
    away = lambda guess: float(jnp.sqrt(jnp.mean((shrink(guess, 4) - small) ** 2)))  # noqa: E731
    assert away(told(wrong)) < 0.4 * away(wrong)
    # what the filter does not see is left to the network
    fine = jnp.tile(jnp.array([0.5, -0.5]), 6)[None, None, :, None]
    added = (told(large + fine) - large)[:, :, 4:8]
    np.testing.assert_allclose(added, jnp.broadcast_to(fine[:, :, 4:8], added.shape), atol=0.05)


def test_stages_that_start_from_noise_enlarge_nothing():
    with pytest.raises(ValueError, match="stage base starts from noise"):
        upscale.upscale(COLOURS, *no_text(1), picture=jnp.zeros((1, 4, 4, 3)), seeds=SEEDS[:1])
    with pytest.raises(ValueError, match="at least one"):
        upscale.upscale([], *no_text(1), picture=jnp.zeros((1, 4, 4, 3)), seeds=SEEDS[:1])
