"""Inpainting of a person's pictures by a whole cascade.

Pictures are [b s s 3] in [-1, 1] at the size of the last stage. Picture i of the result depends
only on picture i, prompt i and seed i.
"""

from collections.abc import Iterator, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from diffjax.core import rng
from diffjax.core.types import Image, PRNGKeys, Resized
from diffjax.diffusion.sampling import inpaint as repaint
from diffjax.generation.chain import TrainedStage, read_by
from diffjax.tasks.conditions import Masked, shrink
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.sampling import compiled, ready
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.space import enlarged_hole
from diffjax.tasks.task import Columns, Params

Mask = Bool[Array, "b h w 1"]
AnyMask = Bool[Array, "b _ _ 1"]
# The part of the ladder that RePaint repeats at a time. On smooth Gaussian fields with a hole, in
# 32 steps with 10 repeats, 1 / 16 was best: its rms distance to the true conditional mean was
# 0.192. Jumps of 1 / 32, 1 / 8 and 1 / 4 gave 0.201, 0.211 and 0.255; no repeats gave 0.360. An
# exact draw has 0.139.
JUMP = 1 / 16


def inpaint(
    stages: Sequence[TrainedStage],
    columns: Columns,
    *,
    picture: Image,
    mask: AnyMask,
    seeds: Int[Array, " b"],
    resample: Sequence[int] | None = None,
) -> list[Resized]:
    """The pictures of every stage, painted anew where `mask` is True and unchanged elsewhere.

    Each stage is given the known pixels at its own size. The first stage has to make the two
    regions fit together (RePaint, Lugmayr et al. 2022). Later stages start from a small picture in
    which they fit, and only put the known pixels back (Replacement, Song et al. 2021). A stage that
    was trained with holes (`pictures.Masked`) also gets its hole. The pixels under the mask are
    never read. Outside the mask the last picture equals `picture` bit for bit.

    resample: for each stage, how often RePaint repeats each part of the ladder; 1 is no repeats.

    Raises:
      ValueError: the first stage needs a low-resolution picture, or the picture or the mask has
        the wrong size.
    """
    return list(
        inpainted(stages, columns, picture=picture, mask=mask, seeds=seeds, resample=resample)
    )


def inpainted(
    stages: Sequence[TrainedStage],
    columns: Columns,
    *,
    picture: Image,
    mask: AnyMask,
    seeds: Int[Array, " b"],
    resample: Sequence[int] | None = None,
) -> Iterator[Resized]:
    """`inpaint`, one stage at a time: a picture can be shown while the next stage works."""
    size_px = checked_size(stages, picture)
    if stages[0].task.low_res_px:
        raise ValueError(f"stage {stages[0].task.name} starts from a picture; want a base stage")
    if mask.shape[1:3] != picture.shape[1:3]:
        raise ValueError(f"mask of {mask.shape[1:3]} for pictures of {picture.shape[1:3]}")
    resample = resample or default_resample(stages)
    keys = rng.per_example(seeds)
    for stage, times in zip(stages, resample, strict=True):
        known, unknown = known_pixels(picture, mask, size_px // stage.task.size_px)
        run = compiled(inpaint_stage, stage.settings, resample=times)
        told = read_by(stage.task, {**columns, "picture": known, "hole": unknown})
        made = run(stage.params, told, keys, known, unknown, task=stage.task)
        columns = {**columns, "low_res": made}
        yield made


def default_resample(stages: Sequence[TrainedStage]) -> tuple[int, ...]:
    """10 for the first stage, as in the paper, since it decides what is drawn; 1 for the others.

    1 also for a first stage that was trained with holes, as it knows what is around them.
    """
    first = 1 if stages[0].task.condition(Masked) else 10
    return (first,) + (1,) * (len(stages) - 1)


def known_pixels(picture: Image, mask: Mask, factor: int) -> tuple[Resized, AnyMask]:
    """The known pixels of the picture at 1 / factor of its size, and the mask at that size.

    A small pixel is known if all factor x factor pixels under it are known. The filter that
    shrinks a picture reads more pixels than those, so we apply it to the known pixels alone and
    divide by the sum of their weights (normalised convolution, Knutsson & Westin 1993). Nothing
    under the mask then shows through.
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
    params: Params,
    columns: Columns,
    keys: PRNGKeys,
    known: Resized,
    mask: AnyMask,
    *,
    task: Denoising,
    settings: SampleSettings,
    resample: int,
) -> Resized:
    """`sampling.sample`, but with the pixels outside the mask known.

    A task that learns latents knows the places without a pixel under the mask. Its encoder gets a
    picture whose unknown pixels are filled smoothly, and the known pixels are put back at the end.
    """
    parts = ready(params, columns, keys, task=task, settings=settings)
    jump = max(1, round(JUMP * settings.num_steps))
    x_known, x_mask = known, mask
    if task.space is not None:
        x_known = task.learned(filled(known, mask))
        x_mask = enlarged_hole(mask.astype(known.dtype), task.space.factor) > 0
    x_0 = repaint.inpaint(
        parts.denoise, parts.x_T, known=x_known, mask=x_mask, resample=resample, jump=jump,
        logsnrs=parts.logsnrs, step=parts.step, key=parts.key,
    )  # fmt: skip
    if task.space is not None:
        return jnp.where(mask, task.pictured(x_0), known)
    return jnp.clip(x_0, -1.0, 1.0)


def filled(picture: Resized, mask: AnyMask) -> Resized:
    """The picture with the pixels under the mask drawn from those around it, coarse to fine.

    Each unknown pixel gets the mean of the known ones of the smallest square of 2 x 2, 4 x 4, ...
    pixels that has some (the pull-push of Gortler et al. 1996, without its filter); grey if there
    is none. So an encoder sees no edge of a hole, and nothing from under the mask.
    """
    keep = 1.0 - mask.astype(picture.dtype)
    sums, weights = [picture * keep], [keep]
    while min(sums[-1].shape[1:3]) % 2 == 0:
        sums.append(sum_of_squares(sums[-1]))
        weights.append(sum_of_squares(weights[-1]))
    coarse = jnp.zeros_like(sums[-1])
    for total, weight in zip(reversed(sums), reversed(weights), strict=True):
        times = total.shape[1] // coarse.shape[1], total.shape[2] // coarse.shape[2]
        coarse = jnp.repeat(jnp.repeat(coarse, times[0], axis=1), times[1], axis=2)
        coarse = jnp.where(weight > 0, total / jnp.maximum(weight, 1.0), coarse)
    return coarse


def sum_of_squares(x: Resized) -> Resized:
    """The sum of each 2 x 2 pixels, at half the size."""
    b, h, w, c = x.shape
    return jnp.sum(x.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))


def checked_size(stages: Sequence[TrainedStage], picture: Image) -> int:
    """The side of the pictures in pixels.

    Raises:
      ValueError: the pictures are not squares of the last stage's size.
    """
    size_px = stages[-1].task.size_px
    if picture.shape[1:3] != (size_px, size_px):
        raise ValueError(f"pictures of {picture.shape[1:3]}: the last stage's are {size_px} px")
    return size_px
