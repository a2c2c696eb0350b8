"""Frames on the way from one prompt or picture to another, without flicker.

From frame to frame only the text and the starting noise change, and they change along a path. All
other noise, of the sampler's steps and of later stages, is the same in every frame. Frames are
[b s s 3] in [-1, 1]; weight 0 is the start of the path and 1 its end.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffjax.core import rng
from diffjax.core.types import Image, PRNGKeys, Resized, Text, TextMask
from diffjax.diffusion.process import alpha_sigma
from diffjax.diffusion.sampling import sampler
from diffjax.diffusion.sampling.inpaint import slerp
from diffjax.editing.img2img import shrink_by
from diffjax.generation.chain import TrainedStage, prompt_columns, read_by
from diffjax.tasks.conditions import NEGATIVE, shrink
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.sampling import compiled, ready, sample
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Columns, Params

Weights = Float[Array, " b"]
Pair = Float[Array, "2 _ _ _"]
# The level, in u, to which a picture is noised before the sampler is inverted. Nearer to the clean
# end there is so little noise that a network's error is taken for noise. Inverted from the cleanest
# of 32 rungs, a small network gave an x_T with a standard deviation of 2.4, and from this level
# 1.2. The price is that the picture comes back 1.7 dB worse.
LEVEL = 0.1


class Prompt(NamedTuple):
    """The embeddings of one prompt [1 l d] and the mask of its tokens [1 l]."""

    text: Text
    mask: TextMask


def between_prompts(
    stages: Sequence[TrainedStage],
    start: Prompt,
    end: Prompt,
    weights: Weights,
    *,
    seeds: tuple[int, int],
    negative: tuple[Float[Array, "1 l d"], Bool[Array, "1 l"]] | None = None,
) -> list[Resized]:
    """For every stage, the frames on the way from (start, seeds[0]) to (end, seeds[1]).

    The text and the x_T of the first stage move along great circles. Weight 0 gives the picture of
    `chain.generate` for the start, and weight 1 that for the end if both seeds are equal.
    negative: the embeddings and the mask of a negative prompt.

    Raises:
      ValueError: the first stage needs a low-resolution picture; or the seeds differ and its
        sampler draws noise in every step, which decides more of the picture than x_T.
    """
    first = stages[0]
    if first.task.low_res_px:
        raise ValueError(f"stage {first.task.name} starts from a picture; want a base stage")
    draws = sampler.SAMPLERS[first.settings.sampler].draws
    if seeds[0] != seeds[1] and draws(first.settings.noise):
        raise ValueError(
            f"sampler={first.settings.sampler!r}, noise={first.settings.noise}: a path between two "
            "seeds needs a sampler that draws no noise, such as ddim"
        )
    text, mask = morphed_text(start, end, weights)
    fixed = rng.per_example(jnp.full(weights.shape, seeds[0], jnp.int32))
    other = rng.per_example(jnp.full(weights.shape, seeds[1], jnp.int32))
    noise_a, noise_b = (first_noise(first.task, keys) for keys in (fixed, other))
    columns = prompt_columns(text, mask)
    if negative:
        away = (jnp.repeat(part, len(weights), axis=0) for part in negative)
        columns |= dict(zip((f"{NEGATIVE}text", f"{NEGATIVE}text_mask"), away, strict=True))
    run = compiled(from_noise, first.settings)
    told, x_T = read_by(first.task, columns), slerp(noise_a, noise_b, weights)
    frames = [run(first.params, told, fixed, x_T, task=first.task)]
    for stage in stages[1:]:
        told = read_by(stage.task, {**columns, "low_res": frames[-1]})
        run = compiled(sample, stage.settings)
        frames.append(run(stage.params, told, fixed, task=stage.task))
    return frames


def first_noise(task: Denoising, keys: PRNGKeys) -> Resized:
    """The x_T that `sampling.sample` draws for a base stage from these keys."""
    shape = (len(keys), *task.shape)
    return rng.normal(rng.stream(rng.stream(keys, task.name), "x_T"), shape)


def morphed_text(start: Prompt, end: Prompt, weights: Weights) -> Prompt:
    """Interpolates two prompts token by token, each token along a great circle.

    The shorter prompt is continued with its last token, the end of the sentence, up to the length
    of the longer one. Weights 0 and 1 give the prompts themselves, without this. If the lengths
    differ, the first and the last step of the path are therefore a little longer than the others.
    """
    num, (num_tokens, width) = len(weights), start.text.shape[1:]
    place = jnp.arange(num_tokens)
    last_a, last_b = (jnp.sum(prompt.mask[0]) - 1 for prompt in (start, end))
    mask = (place <= jnp.maximum(last_a, last_b))[None]

    def tokens(prompt: Prompt, last: Array) -> Image:
        # each token is passed as an image of one pixel, so that it has a circle of its own
        row = prompt.text[0, jnp.minimum(place, last)]
        return jnp.tile(row, (num, 1)).reshape(num * num_tokens, 1, 1, width)

    text = slerp(tokens(start, last_a), tokens(end, last_b), jnp.repeat(weights, num_tokens))
    text = jnp.where(mask[:, :, None], text.reshape(num, num_tokens, width), 0.0)
    at = weights[:, None]
    at_each = at[:, :, None]
    return Prompt(
        jnp.where(at_each <= 0, start.text, jnp.where(at_each >= 1, end.text, text)),
        jnp.where(at <= 0, start.mask, jnp.where(at >= 1, end.mask, mask)),
    )


def between_pictures(
    stages: Sequence[TrainedStage],
    start: Prompt,
    end: Prompt,
    noises: Sequence[Pair],
    weights: Weights,
    *,
    seed: int,
) -> list[Resized]:
    """Frames between two pictures whose noises are known  (Song et al. 2021, app. D.5).

    noises: of each stage, from `noises_of`. start, end: the prompts of the two pictures, or the
    text of no prompt (`img2img.null_columns`).
    """
    text, mask = morphed_text(start, end, weights)
    keys = rng.per_example(jnp.full(weights.shape, seed, jnp.int32))
    columns, frames = prompt_columns(text, mask), []
    for stage, (a, b) in zip(invertible(stages), noises, strict=True):
        x_a, x_b = (jnp.repeat(x[None], len(weights), axis=0) for x in (a, b))
        run = compiled(from_noise, stage.settings)
        told = read_by(stage.task, columns)
        made = run(stage.params, told, keys, slerp(x_a, x_b, weights), task=stage.task)
        columns = {**columns, "low_res": made}
        frames.append(made)
    return frames


def noises_of(
    stages: Sequence[TrainedStage],
    start: Prompt,
    end: Prompt,
    pictures: Image,
    *,
    seed: int,
    level: float = LEVEL,
) -> list[Pair]:
    """For every stage the noises [2 h w 3] from which it makes the two pictures again.

    A stage is inverted with the low-resolution picture that the stage before makes of its noise,
    not with the true one, because the former is what it will be given. level in [0, 1), as u: the
    pictures are first noised to it with the noise of `seed`; 0 means no noise.

    Raises:
      ValueError: there are not two pictures, their size is not the last stage's, or level is not
        in [0, 1).
    """
    if not 0 <= level < 1:
        raise ValueError(f"level={level}: must be at least 0 and below 1")
    size_px = stages[-1].task.size_px
    if pictures.shape[:3] != (2, size_px, size_px):
        raise ValueError(f"pictures of {pictures.shape[:3]}, want two of {size_px} px")
    text, mask = (jnp.concatenate(parts) for parts in zip(start, end, strict=True))
    keys = rng.per_example(jnp.full(2, seed, jnp.int32))
    columns, first, noises = prompt_columns(text, mask), stages[0].task.low_res_px, []
    if first:
        columns["low_res"] = shrink(pictures, size_px // first)
    for stage in invertible(stages):
        told = (stage.params, read_by(stage.task, columns), keys)
        part = shrink_by(pictures, size_px // stage.task.size_px)
        back = compiled(to_noise, stage.settings, level=level)
        noises.append(back(*told, part, task=stage.task))
        again = compiled(from_noise, stage.settings)
        columns["low_res"] = again(*told, noises[-1], task=stage.task)
    return noises


def invertible(stages: Sequence[TrainedStage]) -> list[TrainedStage]:
    """The stages with settings whose sampling can be inverted: DDIM without guidance."""
    made = []
    for one in stages:
        limit = "none" if one.task.space else "static"
        settings = dataclasses.replace(
            one.settings, sampler="ddim", noise=0.0, guidance_weight=1.0, threshold=limit
        )
        made.append(dataclasses.replace(one, settings=settings))
    return made


def from_noise(
    params: Params,
    columns: Columns,
    keys: PRNGKeys,
    x_T: Resized,
    *,
    task: Denoising,
    settings: SampleSettings,
) -> Resized:
    """`sampling.sample` from the given x_T; all other noise comes from the keys."""
    parts = ready(params, columns, keys, task=task, settings=settings)
    return task.pictured(parts.sample(x_T))


def to_noise(
    params: Params,
    columns: Columns,
    keys: PRNGKeys,
    picture: Resized,
    *,
    task: Denoising,
    settings: SampleSettings,
    level: float,
) -> Resized:
    """The x_T from which `from_noise` makes the picture, up to the error of finite steps."""
    parts = ready(params, columns, keys, task=task, settings=settings)
    rungs, x_0 = parts.logsnrs, task.learned(picture)
    if level:
        rungs = rungs[: round((1 - level) * settings.num_steps) + 1]
        alpha, sigma = alpha_sigma(jnp.broadcast_to(rungs[-1], x_0.shape[:1]))
        # `invert` takes its argument as clean and scales it by alpha, which gives
        # alpha x_0 + sigma eps
        eps = rng.normal(rng.stream(rng.stream(keys, task.name), "path"), x_0.shape)
        x_0 = x_0 + sigma / alpha * eps
    return sampler.invert(parts.denoise, x_0, logsnrs=rungs, step=parts.step)


def even_weights(weights: Float[np.ndarray, " n"], frames: np.ndarray) -> Float[np.ndarray, " n"]:
    """Weights at which neighbouring frames would be about equally far apart (rms over pixels).

    weights: from 0 to 1. frames: those at `weights`. Networks that know few things stay near one
    of them for most of a path and then leap to the next. Between two frames the distance is taken
    to grow linearly, so a second call with the new frames comes closer.
    """
    steps = np.sqrt(np.mean(np.diff(frames, axis=0) ** 2, axis=tuple(range(1, frames.ndim))))
    way = np.concatenate([[0.0], np.cumsum(steps + 1e-6)])
    found = np.interp(np.linspace(0.0, way[-1], len(weights)), way, weights)
    return np.concatenate([[0.0], found[1:-1], [1.0]]).astype(np.float32)
