"""A person's pictures through a whole cascade: inpainting, picture and prompt, variations.

Pictures are [b s s 3] in [-1, 1] at the size of the last stage. Picture i of the answer depends on
its own picture, prompt and seed alone. A program is compiled once per stage and settings.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffjax.core import rng
from diffjax.core.types import Image, PRNGKeys, Resized, Schedule, Text, TextMask
from diffjax.diffusion.process import diffuse
from diffjax.diffusion.sampling import inpaint as inpaint_lib
from diffjax.diffusion.sampling import sampler, spacing
from diffjax.tasks.denoising import Stage, shrink
from diffjax.tasks.sampling import Negative, SampleSettings, TrainedStage, ready
from diffjax.tasks.text import null_text

Mask = Bool[Array, "b h w 1"]
AnyMask = Bool[Array, "b _ _ 1"]
Rungs = Float[Array, " n"]
# How much of the ladder RePaint goes back at a time. Of smooth Gaussian fields with a hole, in 32
# steps and ten times over, 1 / 16 came nearest to the true conditional mean: 0.192 away (rms), an
# exact draw 0.139; jumps of 1 / 32, 1 / 8 and 1 / 4 0.201, 0.211 and 0.255; once over 0.360.
JUMP = 1 / 16


def inpaint(
    stages: Sequence[TrainedStage],
    text: Text,
    text_mask: TextMask,
    *,
    picture: Image,
    mask: AnyMask,
    seeds: Int[Array, " b"],
    resample: Sequence[int] | None = None,
    negative: Negative = None,
) -> list[Resized]:
    """The pictures of every stage, painted anew where `mask` is True and as they were elsewhere.

    Each stage is told the known pixels of its own size: the first has to bring the two regions
    together (RePaint, Lugmayr et al. 2022), those after it start from a picture that fits already
    and take the true pixels (Replacement, Song et al. 2021). Nothing under the mask is looked at.
    The last picture is `picture` bit for bit outside the mask.

    resample: for each stage how often RePaint goes over every stretch, 1 never looks back.

    Raises:
      ValueError: the first stage starts from a picture, or a picture or mask of another size.
    """
    told: Any = dict(picture=picture, mask=mask, seeds=seeds, resample=resample, negative=negative)
    return list(inpainted(stages, text, text_mask, **told))


def inpainted(
    stages: Sequence[TrainedStage],
    text: Text,
    text_mask: TextMask,
    *,
    picture: Image,
    mask: AnyMask,
    seeds: Int[Array, " b"],
    resample: Sequence[int] | None = None,
    negative: Negative = None,
) -> Iterator[Resized]:
    """What `inpaint` gives, a stage at a time: the first can be shown while the next is made."""
    size_px = _check(stages, picture)
    if stages[0].stage.low_res_px:
        raise ValueError(f"stage {stages[0].stage.name} starts from a picture; want a base stage")
    if mask.shape[1:3] != picture.shape[1:3]:
        raise ValueError(f"mask of {mask.shape[1:3]} for pictures of {picture.shape[1:3]}")
    resample = resample or default_resample(len(stages))
    keys, low_res = rng.per_example(seeds), None
    for trained, times in zip(stages, resample, strict=True):
        known, unknown = known_pixels(picture, mask, size_px // trained.stage.size_px)
        run = compiled(inpaint_stage, trained.stage, trained.settings, resample=times)
        low_res = run(trained.params, text, text_mask, keys, low_res, negative, known, unknown)
        yield low_res


def default_resample(num_stages: int) -> tuple[int, ...]:
    """RePaint's ten times for the first stage, where the picture is decided; then once."""
    return (10,) + (1,) * (num_stages - 1)


def known_pixels(picture: Image, mask: Mask, factor: int) -> tuple[Resized, AnyMask]:
    """What is known of the picture at 1 / factor of its size, and the mask at that size.

    A small pixel is known if all the pixels under it are. The filter that shrinks reaches
    further: it is taken over the known pixels alone, with the weights that are left (normalised
    convolution, Knutsson & Westin 1993), so that nothing under the mask shows through.
    """
    if factor == 1:
        return picture, mask
    b, h, w, _ = mask.shape
    parts = mask.reshape(b, h // factor, factor, w // factor, factor, 1)
    unknown = jnp.any(parts, axis=(2, 4))
    keep = 1.0 - mask.astype(picture.dtype)
    share = shrink(keep, factor)
    known = shrink(picture * keep, factor) / jnp.where(unknown, 1.0, share)
    return jnp.clip(jnp.where(unknown, 0.0, known), -1.0, 1.0), unknown


def inpaint_stage(
    params: Any,
    text: Text,
    text_mask: TextMask,
    keys: PRNGKeys,
    low_res: Image | None,
    negative: Negative,
    known: Resized,
    mask: AnyMask,
    *,
    stage: Stage,
    settings: SampleSettings,
    resample: int,
) -> Resized:
    """`sampling.sample_stage` with the pixels outside the mask given."""
    denoise, x_T, how = ready(
        params, text, text_mask, keys, low_res, negative, stage=stage, settings=settings
    )
    jump = max(1, round(JUMP * settings.num_steps))
    image = inpaint_lib.inpaint(
        denoise, x_T, known=known, mask=mask, resample=resample, jump=jump, **how
    )
    return jnp.clip(image, -1.0, 1.0)


def img2img(
    stages: Sequence[TrainedStage],
    text: Text,
    text_mask: TextMask,
    *,
    picture: Image,
    strength: float,
    seeds: Int[Array, " b"],
    negative: Negative = None,
) -> list[Resized]:
    """The pictures of every stage from a picture and a prompt: SDEdit  (Meng et al. 2022).

    Every stage starts from the picture noised to a level and goes down from there in all of its
    steps. strength in (0, 1] is that level for the first stage, in u of its schedule: near 0 the
    picture comes back, 1 is `sampling.generate`. See `ladders` for the stages after it.

    Raises:
      ValueError: a picture of another size, or a strength outside (0, 1].
    """
    size_px = _check(stages, picture)
    first = stages[0].stage
    low_res = shrink(picture, size_px // first.low_res_px) if first.low_res_px else None
    keys, pictures = rng.per_example(seeds), []
    for trained, rungs in zip(stages, ladders(stages, strength), strict=True):
        part = at_size(picture, size_px // trained.stage.size_px)
        run = compiled(sdedit_stage, trained.stage, trained.settings)
        low_res = run(trained.params, text, text_mask, keys, low_res, negative, part, rungs)
        pictures.append(low_res)
    return pictures


def vary(
    stages: Sequence[TrainedStage],
    text: Text,
    text_mask: TextMask,
    *,
    picture: Image,
    strength: float,
    seeds: Int[Array, " b"],
) -> list[Resized]:
    """Variations of a picture, which needs no prompt: SDEdit without guidance.

    Noising a picture and denoising it is a draw from p(x' | x_t) after one from q(x_t | x): a step
    of Gibbs sampling that leaves the distribution of the data as it is, so that with an exact
    denoiser a variation of a real picture is as likely as a real picture. The other way, to invert
    the sampler and go down with noise, leaves it so too, but has to climb without guidance and
    threshold, costs twice the evaluations and adds up its errors on the way to pure noise.

    `null_of` makes the text of no prompt.
    """
    plain = [
        dataclasses.replace(t, settings=dataclasses.replace(t.settings, guidance_weight=1.0))
        for t in stages
    ]
    return img2img(plain, text, text_mask, picture=picture, strength=strength, seeds=seeds)


def null_of(stage: Stage, num: int) -> tuple[Text, TextMask]:
    """The text of no prompt, `num` times."""
    text = jnp.zeros((num, stage.max_tokens, stage.text_width))
    return null_text(text, jnp.zeros(text.shape[:2], bool))


def sdedit_stage(
    params: Any,
    text: Text,
    text_mask: TextMask,
    keys: PRNGKeys,
    low_res: Image | None,
    negative: Negative,
    picture: Resized,
    logsnrs: Rungs,
    *,
    stage: Stage,
    settings: SampleSettings,
) -> Resized:
    """`sampling.sample_stage` from the picture noised to the first rung, with the same noise."""
    denoise, eps, how = ready(
        params, text, text_mask, keys, low_res, negative, stage=stage, settings=settings
    )
    x_t = diffuse(picture, eps, jnp.broadcast_to(logsnrs[0], picture.shape[:1]))
    return jnp.clip(sampler.sample(denoise, x_t, **{**how, "logsnrs": logsnrs}), -1.0, 1.0)


def ladders(stages: Sequence[TrainedStage], strength: float) -> list[Rungs]:
    """Each stage's rungs from the level of `strength` on, as many as its settings have steps.

    Of n times as many pixels a side the same level hides less: averaged over n x n pixels its
    noise is n times smaller. What the first stage may change must be hidden from those after it
    too, so they start at logsnr - 2 log n (the shift of Hoogeboom et al. 2023, sec. 3.1).
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength={strength}: above 0, where nothing changes, and at most 1")
    first = stages[0].stage
    level = float(first.schedule(jnp.float32(strength)))
    rungs = []
    for trained in stages:
        schedule, settings = trained.stage.schedule, trained.settings
        shift = 2 * np.log(trained.stage.size_px / first.size_px)
        start = inverse(schedule, level - shift)
        cut = lambda u, schedule=schedule, start=start: schedule(start * u)  # noqa: E731
        rungs.append(spacing.SPACINGS[settings.spacing](cut, settings.num_steps))
    return rungs


def inverse(schedule: Schedule, logsnr: float) -> float:
    """The u in [0, 1] whose logsnr is nearest to this, of a schedule that falls."""
    levels = spacing.on_grid(schedule, 4097)
    return float(np.interp(-logsnr, -levels, np.linspace(0, 1, len(levels))))


@functools.lru_cache(maxsize=64)
def compiled(function: Callable, stage: Stage, settings: SampleSettings, **static: Any):
    """A function of one stage, jitted, once per (function, stage, settings)."""
    return jax.jit(functools.partial(function, stage=stage, settings=settings, **static))


def at_size(picture: Image, factor: int) -> Resized:
    """The picture as the stage of 1 / factor of its size would have made it."""
    return shrink(picture, factor) if factor > 1 else picture


def _check(stages: Sequence[TrainedStage], picture: Image) -> int:
    """The side of the pictures, which must be the last stage's."""
    size_px = stages[-1].stage.size_px
    if picture.shape[1:3] != (size_px, size_px):
        raise ValueError(f"pictures of {picture.shape[1:3]}: the last stage's are {size_px} px")
    return size_px
