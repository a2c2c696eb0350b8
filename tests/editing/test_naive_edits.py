"""Every edit of a cascade against float64 NumPy."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.editing import img2img, inpaint, morph, upscale
from diffjax.generation.chain import prompt_columns
from diffjax.tasks.settings import SampleSettings
from tests import naive

SEEDS = (3, 8)
BASE = SampleSettings(
    num_steps=4, sampler="ddpm", noise=0.3, guidance_weight=2.0, threshold="static"
)
SR = SampleSettings(
    num_steps=3, sampler="ddim", noise=0.5, guidance_weight=1.5, threshold="dynamic",
    percentile=90.0, aug_level=0.3,
)  # fmt: skip
STAGES = naive.stages_of(BASE, SR)
TEXT, AWAY = naive.prompts(0), naive.prompts(1)
ATOL = 1e-3


def columns(text=TEXT, away=AWAY):
    return prompt_columns(*map(jnp.asarray, text), away and tuple(map(jnp.asarray, away)))


def pictures(seed, rows=2, sides=(8, 8)):
    return np.tanh(np.random.default_rng(seed).normal(size=(rows, *sides, 3))).astype(np.float32)


def test_img2img_starts_from_the_picture_at_a_level_that_grows_with_the_size():
    picture, strength, low_res = pictures(2), 0.55, None
    made = img2img.img2img(
        STAGES, columns(), picture=jnp.asarray(picture), strength=strength, seeds=jnp.array(SEEDS)
    )
    for (name, settings), theirs in zip((("base", BASE), ("sr", SR)), made, strict=True):
        side = naive.SIDES[name]
        level = naive.cosine(strength) - 2 * np.log(side / 4)
        u = np.linspace(0, 1, 200_001)
        start = np.interp(-level, -naive.cosine(u), u)
        rungs = naive.ladder(settings.num_steps, lambda u, start=start: naive.cosine(start * u))
        part = naive.resized(picture, side) if side < 8 else picture
        told = {} if low_res is None else naive.small_noised(low_res, SEEDS, settings.aug_level)
        noise = naive.drawn(naive.keys_of(SEEDS, name, "x_T"), (side, side, 3))
        low_res = naive.walked(
            naive.denoiser(name, TEXT, settings, AWAY, told),
            naive.noised(part, noise, rungs[0]),
            rungs,
            settings,
            naive.keys_of(SEEDS, name, "steps"),
        )
        np.testing.assert_allclose(theirs, low_res, atol=3e-3)


def repainted(name, settings, known, mask, low_res, times):
    """RePaint by hand: a picture walks down, and back by `jump` so often as it is told."""
    told = {} if low_res is None else naive.small_noised(low_res, SEEDS, settings.aug_level)
    denoise, step = naive.denoiser(name, TEXT, settings, AWAY, told), naive.step_of(settings)
    rungs, jump = naive.ladder(settings.num_steps), max(1, round(settings.num_steps / 16))
    path, left = [0], dict.fromkeys(range(len(rungs) - 2, jump - 1, -jump), times - 1)
    while path[-1] < len(rungs) - 1:
        back = left.get(path[-1], 0) > 0
        if back:
            left[path[-1]] -= 1
        path.append(path[-1] - jump if back else path[-1] + 1)
    pairs = [jax.random.split(key, 2) for key in naive.keys_of(SEEDS, name, "steps")]
    own = [jax.random.split(pair[1], len(path) - 1) for pair in pairs]

    def merged(x, keys, level):
        return np.where(mask, x, naive.noised(known, naive.drawn(keys, known.shape[1:]), level))

    x = naive.drawn(naive.keys_of(SEEDS, name, "x_T"), known.shape[1:])
    x, past = merged(x, [pair[0] for pair in pairs], rungs[0]), None
    for i, (at, to) in enumerate(itertools.pairwise(path)):
        first, second = zip(*[jax.random.split(row[i], 2) for row in own], strict=True)
        t, s = rungs[at], rungs[to]
        if to > at:
            x, past = step(denoise, x, t, s, past, first)
            x = merged(x, second, s)
            continue
        (alpha_t, sigma_t), (alpha_s, sigma_s) = naive.levels(t), naive.levels(s)
        fresh = np.sqrt(sigma_s**2 - (alpha_s / alpha_t) ** 2 * sigma_t**2)
        x = alpha_s / alpha_t * x + fresh * naive.drawn(first, x.shape[1:])
        past = None
    return np.clip(x, -1, 1)


@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp_2m"])
def test_inpainting_walks_down_and_back_and_keeps_what_is_known(sampler):
    picture, mask = pictures(4), np.zeros((2, 8, 8, 1), bool)
    mask[:, 1:6, 3:8] = True
    noise, num_steps = 0.3 if sampler == "ddpm" else 0.0, 24  # it goes back by two at a time
    base = SampleSettings(
        num_steps=num_steps, sampler=sampler, noise=noise, guidance_weight=2.0, threshold="static"
    )
    stages, resample = naive.stages_of(base, SR), (3, 1)
    made = inpaint.inpaint(
        stages, columns(), picture=jnp.asarray(picture), mask=jnp.asarray(mask),
        seeds=jnp.array(SEEDS), resample=resample,
    )  # fmt: skip
    # a small pixel is known if its four are; the filter is taken over what is known
    hidden = mask.reshape(2, 4, 2, 4, 2, 1).any((2, 4))
    keep = 1.0 - mask
    share = np.where(hidden, 1.0, naive.resized(keep, 4))
    known = np.where(hidden, 0.0, naive.resized(picture * keep, 4) / share)
    small = repainted("base", base, np.clip(known, -1, 1), hidden, None, resample[0])
    large = repainted("sr", SR, picture, mask, small, resample[1])
    np.testing.assert_allclose(made[0], small, atol=ATOL)
    np.testing.assert_allclose(made[1], large, atol=ATOL)


WEIGHTS = np.array([0.0, 0.3, 0.8, 1.0], np.float32)
ENDS = [morph.Prompt(*(jnp.asarray(part) for part in naive.prompts(seed, 1))) for seed in (5, 6)]


def between(ends, weights):
    """The text on the way: the shorter prompt goes on with its last token."""
    (text_a, mask_a), (text_b, mask_b) = (map(np.asarray, end) for end in ends)
    lengths = mask_a.sum(), mask_b.sum()
    place = np.arange(naive.TOKENS)
    long = [t[0, np.minimum(place, n - 1)] for t, n in zip((text_a, text_b), lengths, strict=True)]
    text, mask = [], []
    for weight in weights:
        end = {0.0: (text_a, mask_a), 1.0: (text_b, mask_b)}.get(float(weight))
        seen = place < max(lengths)
        way = naive.slerp(*(x.astype(np.float64) for x in long), np.full(len(place), weight))
        text.append(end[0][0] if end else np.where(seen[:, None], way, 0.0))
        mask.append(end[1][0] if end else seen)
    return np.stack(text), np.stack(mask)


def test_a_path_between_prompts_keeps_its_noise_and_its_negative_prompt_at_every_stage():
    base = SampleSettings(num_steps=4, sampler="ddim", guidance_weight=2.0, threshold="static")
    seeds, away = (3, 8), naive.prompts(9, 1)
    made = morph.between_prompts(
        naive.stages_of(base, SR), *ENDS, jnp.asarray(WEIGHTS), seeds=seeds,
        negative=tuple(map(jnp.asarray, away)),
    )  # fmt: skip
    text, rows = between(ENDS, WEIGHTS), len(WEIGHTS)
    all_away = [np.repeat(part, rows, axis=0) for part in away]
    noises = [naive.drawn(naive.keys_of([seed], "base", "x_T"), (4, 4, 3)) for seed in seeds]
    x_T = naive.slerp(*(np.repeat(noise, rows, axis=0) for noise in noises), WEIGHTS)
    fixed = [seeds[0]] * rows
    small = naive.sampled("base", text, fixed, base, all_away, x_T=x_T)
    large = naive.sampled("sr", text, fixed, SR, all_away, small)
    np.testing.assert_allclose(made[0], small, atol=ATOL)
    np.testing.assert_allclose(made[1], large, atol=ATOL)


def test_a_path_between_pictures_goes_through_the_noises_that_they_come_from():
    """Each stage is inverted by DDIM without guidance, under what the one before makes again."""
    seed, level, picture = 4, 0.1, pictures(7)  # so near to the clean picture it sets out
    both = [dataclasses.replace(one, num_steps=10) for one in (BASE, SR)]
    stages = naive.stages_of(*both)
    noises = morph.noises_of(stages, *ENDS, jnp.asarray(picture), seed=seed)
    made = morph.between_pictures(stages, *ENDS, noises, jnp.asarray(WEIGHTS), seed=seed)
    ends = [np.concatenate([np.asarray(end[i]) for end in ENDS]) for i in (0, 1)]
    text, low_res, frames = between(ENDS, WEIGHTS), None, None
    for i, (name, own) in enumerate(zip(naive.SIDES, both, strict=True)):
        quiet = SampleSettings(
            num_steps=own.num_steps, sampler="ddim", guidance_weight=1.0, threshold="static",
            aug_level=own.aug_level,
        )  # fmt: skip
        told = {} if low_res is None else naive.small_noised(low_res, [seed] * 2, own.aug_level)
        denoise, step = naive.denoiser(name, ends, quiet, None, told), naive.step_of(quiet)
        side = naive.SIDES[name]
        part = naive.resized(picture, side) if side < 8 else picture
        rungs = naive.ladder(quiet.num_steps)[: round((1 - level) * quiet.num_steps) + 1]
        eps = naive.drawn(naive.keys_of([seed] * 2, name, "path"), part.shape[1:])
        x, past = naive.noised(part, eps, rungs[-1]), None
        # the way back sets out with a step that stays where it is
        for t, s in itertools.pairwise(rungs[::-1]):
            x, past = step(denoise, x, t, s, past, None)
        np.testing.assert_allclose(noises[i], x, atol=ATOL)
        low_res = naive.sampled(name, ends, [seed] * 2, quiet, low_res=low_res, x_T=x)
        pair = [np.repeat(one[None], len(WEIGHTS), axis=0) for one in x]
        frames = naive.sampled(
            name, text, [seed] * len(WEIGHTS), quiet, low_res=frames,
            x_T=naive.slerp(*pair, WEIGHTS),
        )  # fmt: skip
        np.testing.assert_allclose(made[i], frames, atol=3e-3)


@pytest.mark.parametrize("faithful", [True, False])
def test_enlarging_goes_over_tiles_that_overlap_by_a_quarter(faithful):
    """A small picture of 4 x 7: two tiles of 8 px, 2 px of each in the other's ramp at least."""
    small, stage = pictures(8, sides=(4, 7)), naive.stages_of(BASE, SR)[1:]
    (made,) = upscale.upscale(
        stage, columns(), picture=jnp.asarray(small), seeds=jnp.array(SEEDS),
        **({} if faithful else {"faithful": False}),
    )  # fmt: skip
    enlarge = lambda x, h, w: np.einsum(  # noqa: E731
        "ih,bhwc,jw->bijc", naive.resizer(x.shape[1], h), x, naive.resizer(x.shape[2], w)
    )
    eps = naive.drawn(naive.keys_of(SEEDS, "sr", "aug_noise"), small.shape[1:])
    logsnr = naive.cosine(np.full(2, SR.aug_level))
    low_res = enlarge(naive.noised(small, eps, logsnr), 8, 14)
    corners, tile, overlap = (0, 6), 8, 2
    assert upscale.num_tiles(stage[0].task, 4, 7) == len(corners)
    away = np.minimum(np.arange(1, tile + 1), np.arange(tile, 0, -1))
    ramp = np.minimum(1.0, away / (overlap + 1))
    window = np.outer(ramp, ramp)[None, :, :, None]

    def denoise(x_t, level):
        sums = weights = np.zeros(x_t.shape)
        for left in corners:
            here = (slice(None), slice(None), slice(left, left + tile))
            told = {"low_res": low_res[here], "aug_logsnr": logsnr}
            guess = naive.denoiser("sr", TEXT, SR, AWAY, told)(x_t[here], level)
            one, weight = np.zeros(x_t.shape), np.zeros(x_t.shape)
            one[here], weight[here] = window * guess, window
            sums, weights = sums + one, weights + weight
        x_0 = sums / weights
        return x_0 + enlarge(small - enlarge(x_0, 4, 7), 8, 14) if faithful else x_0

    noise = naive.drawn(naive.keys_of(SEEDS, "sr", "x_T"), low_res.shape[1:])
    keys = naive.keys_of(SEEDS, "sr", "steps")
    large = naive.walked(denoise, noise, naive.ladder(SR.num_steps), SR, keys)
    np.testing.assert_allclose(made, large, atol=ATOL)
