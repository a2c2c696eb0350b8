"""Makes pictures from a picture with SDEdit: from a prompt, or as variations without a prompt."""

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
from diffjax.tasks.conditions import Tokens, shrink
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.sampling import compiled, ready
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Columns, Params

Rungs = Float[Array, " n"]


def img2img(
    stages: Sequence[TrainedStage],
    columns: Columns,
    *,
    picture: Image,
    strength: float,
    seeds: Int[Array, " b"],
) -> list[Resized]:
    """The pictures of every stage, from a picture and a prompt: SDEdit  (Meng et al. 2022).

    Every stage starts from the picture with noise of some level and denoises it in all of its
    steps. strength in (0, 1] is that level for the first stage, as u of its schedule. Near 0 the
    picture comes back unchanged; 1 gives the pictures of `chain.generate`. `ladders` chooses the
    levels of the later stages.

    Raises:
      ValueError: the picture has another size than the last stage's, or strength is not in (0, 1].
    """
    size_px = checked_size(stages, picture)
    first = stages[0].task
    if first.low_res_px:
        columns = {**columns, "low_res": shrink(picture, size_px // first.low_res_px)}
    keys, pictures = rng.per_example(seeds), []
    for stage, rungs in zip(stages, ladders(stages, strength), strict=True):
        part = shrink_by(picture, size_px // stage.task.size_px)
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
    """Variations of a picture without a prompt: SDEdit without guidance.

    Noising a picture draws from q(x_t | x), and denoising it draws from p(x' | x_t). Together they
    are a step of Gibbs sampling, which leaves the data's distribution as it is: with an exact
    denoiser a variation is as likely as a real picture. Inverting the sampler and then sampling
    with noise would leave it so as well. But inversion works only without guidance and threshold,
    costs twice the evaluations, and its errors add up on the way to pure noise.

    columns: usually those of `null_columns`, the text of no prompt.
    """
    plain = [
        dataclasses.replace(t, settings=dataclasses.replace(t.settings, guidance_weight=1.0))
        for t in stages
    ]
    return img2img(plain, columns, picture=picture, strength=strength, seeds=seeds)


def null_columns(task: Denoising, num: int) -> dict[str, Array]:
    """The columns of an absent prompt, for `num` rows."""
    told = task.text or task.condition(Tokens)
    assert told is not None, f"{task.name} takes no text"
    return dict(told.nothing(num))


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
    """`sampling.sample`, started from the picture noised to the first rung with the same noise.

    A task that learns latents noises that of the picture.
    """
    parts = ready(params, columns, keys, task=task, settings=settings)
    x_0 = task.learned(picture)
    x_t = diffuse(x_0, parts.x_T, jnp.broadcast_to(logsnrs[0], x_0.shape[:1]))
    return task.pictured(parts.sample(x_t, logsnrs))


def ladders(stages: Sequence[TrainedStage], strength: float) -> list[Rungs]:
    """The noise levels of each stage, in logsnr, from that of `strength` down to clean.

    The same level hides less of a picture with n times as many pixels a side, because the noise
    averaged over n x n pixels is n times smaller. Later stages must not see what the first stage
    may change, so they start at logsnr - 2 log n (the shift of Hoogeboom et al. 2023, sec. 3.1).
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength={strength}: must be above 0 and at most 1")
    first = stages[0].task
    level = float(first.schedule_of(stages[0].params)(jnp.float32(strength)))
    rungs = []
    for trained in stages:
        schedule, settings = trained.task.schedule_of(trained.params), trained.settings
        shift = 2 * np.log(trained.task.shape[0] / first.shape[0])
        start = inverse(schedule, level - shift)
        cut = lambda u, schedule=schedule, start=start: schedule(start * u)  # noqa: E731
        rungs.append(spacing.SPACINGS[settings.spacing](cut, settings.num_steps))
    return rungs


def inverse(schedule: Schedule, logsnr: float) -> float:
    """The u in [0, 1] at which the decreasing schedule comes nearest to `logsnr`."""
    levels = spacing.on_grid(schedule, 4097)
    return float(np.interp(-logsnr, -levels, np.linspace(0, 1, len(levels))))


def shrink_by(picture: Image, factor: int) -> Resized:
    """The picture at 1 / factor of its size; unchanged for factor 1."""
    return shrink(picture, factor) if factor > 1 else picture
