"""Pictures from a picture: with a prompt, or as variations without one  (SDEdit)."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffjax.core import rng
from diffjax.core.types import Image, PRNGKeys, Resized, Schedule
from diffjax.diffusion.process import diffuse
from diffjax.diffusion.sampling import spacing
from diffjax.editing.inpaint import checked_size
from diffjax.generation.chain import TrainedStage, read_by
from diffjax.tasks.conditions import shrink
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.sampling import compiled, ready
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Columns, Params
from diffjax.tasks.text import null_text

Rungs = Float[Array, " n"]


def img2img(
    stages: Sequence[TrainedStage],
    columns: Columns,
    *,
    picture: Image,
    strength: float,
    seeds: Int[Array, " b"],
) -> list[Resized]:
    """The pictures of every stage from a picture and a prompt: SDEdit  (Meng et al. 2022).

    Every stage starts from the picture noised to a level and goes down from there in all of its
    steps. strength in (0, 1] is that level for the first stage, in u of its schedule: near 0 the
    picture comes back, 1 is `sampling.generate`. See `ladders` for the stages after it.

    Raises:
      ValueError: a picture of another size, or a strength outside (0, 1].
    """
    size_px = checked_size(stages, picture)
    first = stages[0].task
    if first.low_res_px:
        columns = {**columns, "low_res": shrink(picture, size_px // first.low_res_px)}
    keys, pictures = rng.per_example(seeds), []
    for stage, rungs in zip(stages, ladders(stages, strength), strict=True):
        part = at_size(picture, size_px // stage.task.size_px)
        run = compiled(sdedit_stage, stage.settings)
        told = read_by(stage.task, columns)
        made = run(stage.params, told, keys, part, rungs, task=stage.task)
        columns = {**columns, "low_res": made}
        pictures.append(made)
    return pictures


def vary(
    stages: Sequence[TrainedStage],
    columns: Columns,
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

    `null_columns` makes the text of no prompt.
    """
    plain = [
        dataclasses.replace(t, settings=dataclasses.replace(t.settings, guidance_weight=1.0))
        for t in stages
    ]
    return img2img(plain, columns, picture=picture, strength=strength, seeds=seeds)


def null_columns(task: Denoising, num: int) -> dict[str, Array]:
    """The columns of no prompt, `num` times."""
    assert task.text is not None, f"{task.name} takes no text"
    text = jnp.zeros((num, task.text.max_tokens, task.text.width))
    text, mask = null_text(text, jnp.zeros(text.shape[:2], bool))
    return {"text": text, "text_mask": mask}


def sdedit_stage(
    params: Params,
    columns: Columns,
    keys: PRNGKeys,
    picture: Resized,
    logsnrs: Rungs,
    *,
    task: Denoising,
    settings: SampleSettings,
) -> Resized:
    """`sampling.sample` from the picture noised to the first rung, with the same noise."""
    parts = ready(params, columns, keys, task=task, settings=settings)
    x_t = diffuse(picture, parts.x_T, jnp.broadcast_to(logsnrs[0], picture.shape[:1]))
    return parts.sample(x_t, logsnrs)


def ladders(stages: Sequence[TrainedStage], strength: float) -> list[Rungs]:
    """Each stage's rungs from the level of `strength` on, as many as its settings have steps.

    Of n times as many pixels a side the same level hides less: averaged over n x n pixels its
    noise is n times smaller. What the first stage may change must be hidden from those after it
    too, so they start at logsnr - 2 log n (the shift of Hoogeboom et al. 2023, sec. 3.1).
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength={strength}: above 0, where nothing changes, and at most 1")
    first = stages[0].task
    level = float(first.schedule(jnp.float32(strength)))
    rungs = []
    for trained in stages:
        schedule, settings = trained.task.schedule, trained.settings
        shift = 2 * np.log(trained.task.size_px / first.size_px)
        start = inverse(schedule, level - shift)
        cut = lambda u, schedule=schedule, start=start: schedule(start * u)  # noqa: E731
        rungs.append(spacing.SPACINGS[settings.spacing](cut, settings.num_steps))
    return rungs


def inverse(schedule: Schedule, logsnr: float) -> float:
    """The u in [0, 1] whose logsnr is nearest to this, of a schedule that falls."""
    levels = spacing.on_grid(schedule, 4097)
    return float(np.interp(-logsnr, -levels, np.linspace(0, 1, len(levels))))


def at_size(picture: Image, factor: int) -> Resized:
    """The picture as the stage of 1 / factor of its size would have made it."""
    return shrink(picture, factor) if factor > 1 else picture
