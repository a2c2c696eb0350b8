"""From one prompt or picture to another, frame by frame, without flicker.

What may change from frame to frame changes along a path: the text, and the noise of the first
stage. The noise of every stage after it, and of every sampler's steps, is that of one seed.
Frames are [b s s 3] in [-1, 1]; weight 0 is the start of the path and 1 its end.
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
from diffjax.editing.img2img import at_size
from diffjax.generation.chain import TrainedStage, prompt_columns, read_by
from diffjax.tasks.conditions import NEGATIVE, shrink
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.sampling import compiled, ready, sample
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Columns, Params

Weights = Float[Array, " b"]
Pair = Float[Array, "2 _ _ _"]
# Where the way back from a picture sets out, in u. Nearer to the clean end a network's error over
# the little noise there is passes for noise: from the cleanest of 32 rungs a small network came to
# an x_T of deviation 2.4, from here to 1.2, and the picture came back 1.7 dB worse.
LEVEL = 0.1


class Prompt(NamedTuple):
    """The embeddings of one prompt, and which of them are seen."""

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
    """Frames on the way from (start, seeds[0]) to (end, seeds[1]), of every stage.

    Text and the first stage's x_T go along great circles. Weight 0 is `sampling.generate` of the
    start, weight 1 that of the end if both have one seed. negative: embeddings of one prompt.

    Raises:
      ValueError: the first stage starts from a picture; or there are two seeds and its sampler
        draws noise, of which every step has more to say than x_T.
    """
    first = stages[0]
    if first.task.low_res_px:
        raise ValueError(f"stage {first.task.name} starts from a picture; want a base stage")
    draws = sampler.SAMPLERS[first.settings.sampler].draws
    if seeds[0] != seeds[1] and draws(first.settings.noise):
        raise ValueError(
            f"sampler={first.settings.sampler!r}, noise={first.settings.noise}: a path between two "
            "seeds wants a sampler that draws no noise, such as ddim"
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
    """Between two prompts, token by token along great circles.

    The shorter prompt goes on with its last token, the end of the sentence, up to the longer's
    length. At weight 0 and 1 each prompt is as it was: with prompts of different lengths the first
    and the last step of the path are a little longer than the others.
    """
    num, (num_tokens, width) = len(weights), start.text.shape[1:]
    place = jnp.arange(num_tokens)
    last_a, last_b = (jnp.sum(prompt.mask[0]) - 1 for prompt in (start, end))
    mask = (place <= jnp.maximum(last_a, last_b))[None]

    def tokens(prompt: Prompt, last: Array) -> Image:
        # each is a picture of one pixel, so that each has its own circle
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
    """Frames between the two pictures that `noises_of` went back from (Song et al. 2021, app. D.5).

    start, end: their prompts, or no prompt (`img2img.null_columns`).
    """
    text, mask = morphed_text(start, end, weights)
    keys = rng.per_example(jnp.full(weights.shape, seed, jnp.int32))
    columns, frames = prompt_columns(text, mask), []
    for stage, (a, b) in zip(quiet(stages), noises, strict=True):
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
    """The noises of every stage, [2 h w 3], from which each of two pictures comes back.

    A stage is inverted under the picture that the stage before makes of its own noise, not under
    the true one: that is what it will be given. level, in u: where the way back sets out, with
    noise of the seed; 0 for the cleanest rung and no noise.

    Raises:
      ValueError: not two pictures, or of another size than the last stage's; or a level
        outside [0, 1).
    """
    if not 0 <= level < 1:
        raise ValueError(f"level={level}: from 0 up to, but not, 1")
    size_px = stages[-1].task.size_px
    if pictures.shape[:3] != (2, size_px, size_px):
        raise ValueError(f"pictures of {pictures.shape[:3]}, want two of {size_px} px")
    text, mask = (jnp.concatenate(parts) for parts in zip(start, end, strict=True))
    keys = rng.per_example(jnp.full(2, seed, jnp.int32))
    columns, first, noises = prompt_columns(text, mask), stages[0].task.low_res_px, []
    if first:
        columns["low_res"] = shrink(pictures, size_px // first)
    for stage in quiet(stages):
        told = (stage.params, read_by(stage.task, columns), keys)
        part = at_size(pictures, size_px // stage.task.size_px)
        back = compiled(to_noise, stage.settings, level=level)
        noises.append(back(*told, part, task=stage.task))
        again = compiled(from_noise, stage.settings)
        columns["low_res"] = again(*told, noises[-1], task=stage.task)
    return noises


def quiet(stages: Sequence[TrainedStage]) -> list[TrainedStage]:
    """The stages sampled so that it can be undone: by DDIM, without guidance."""
    return [
        dataclasses.replace(
            trained,
            settings=dataclasses.replace(
                trained.settings, sampler="ddim", noise=0.0, guidance_weight=1.0, threshold="static"
            ),
        )
        for trained in stages
    ]


def from_noise(
    params: Params,
    columns: Columns,
    keys: PRNGKeys,
    x_T: Resized,
    *,
    task: Denoising,
    settings: SampleSettings,
) -> Resized:
    """`sampling.sample` from noise that is given; all other noise is the keys'."""
    return ready(params, columns, keys, task=task, settings=settings).sample(x_T)


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
    """The noise from which `from_noise` comes to the picture, but for the length of its steps."""
    parts = ready(params, columns, keys, task=task, settings=settings)
    rungs = parts.logsnrs
    if level:
        rungs = rungs[: round((1 - level) * settings.num_steps) + 1]
        alpha, sigma = alpha_sigma(jnp.broadcast_to(rungs[-1], picture.shape[:1]))
        # `invert` takes what it is given as clean: alpha of this is alpha x_0 + sigma eps
        eps = rng.normal(rng.stream(rng.stream(keys, task.name), "path"), picture.shape)
        picture = picture + sigma / alpha * eps
    return sampler.invert(parts.denoise, picture, logsnrs=rungs, step=parts.step)


def evenly(weights: Float[np.ndarray, " n"], frames: np.ndarray) -> Float[np.ndarray, " n"]:
    """As many weights, at which the frames would lie equally far from each other.

    frames: those at `weights`, which go from 0 to 1. How far the picture has come is taken as
    straight between them, so that a second time comes nearer. A network that knows few things
    stays with one for most of a path and leaps to the next.
    """
    steps = np.sqrt(np.mean(np.diff(frames, axis=0) ** 2, axis=tuple(range(1, frames.ndim))))
    way = np.concatenate([[0.0], np.cumsum(steps + 1e-6)])
    found = np.interp(np.linspace(0.0, way[-1], len(weights)), way, weights)
    return np.concatenate([[0.0], found[1:-1], [1.0]]).astype(np.float32)
