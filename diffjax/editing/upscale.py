"""Super-resolution of a person's own picture, of any size and shape."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffjax.core import rng
from diffjax.core.types import Denoiser, Image, LogSnr, PRNGKeys, Resized
from diffjax.diffusion.predict import x_0_of
from diffjax.diffusion.sampling import sampler, spacing
from diffjax.diffusion.sampling.tiles import starts, tiled
from diffjax.generation.chain import TrainedStage, read_by
from diffjax.images import pixels
from diffjax.tasks.conditions import shrink
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.sampling import compiled, denoiser, given_by
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Columns, Params

# Tiles overlap by a quarter of their side.
OVERLAP = 4


def upscale(
    stages: Sequence[TrainedStage],
    columns: Columns,
    *,
    picture: Image,
    seeds: Int[Array, " b"],
    faithful: bool = True,
) -> list[Resized]:
    """The picture [b h w 3] enlarged by every stage in turn, each by its own factor.

    The tiles of a larger picture are as large as the pictures that the network was trained on. A
    smaller picture is first extended to a tile by repeating its edge, and cut afterwards.

    faithful: keep the result, when shrunk, equal to `picture` (see `consistent`), so that colours
    do not drift from tile to tile. Without it, a picture of the size of one tile is enlarged just
    as in `chain.generate`.

    Returns:
      For every stage the picture [b h w 3] at its size.

    Raises:
      ValueError: there is no stage, or one that does not start from a picture.
    """
    for stage in stages:
        if not stage.task.low_res_px:
            raise ValueError(f"stage {stage.task.name} starts from noise alone, not a picture")
    if not stages:
        raise ValueError("stages=(): want at least one that starts from a picture")
    keys, pictures = rng.per_example(seeds), []
    for stage in stages:
        height, width = picture.shape[1:3]
        run = compiled(upscale_stage, stage.settings, faithful=faithful)
        told = read_by(stage.task, {**columns, "low_res": at_least(picture, stage.task)})
        large = run(stage.params, told, keys, task=stage.task)
        factor = stage.task.factor
        picture = large[:, : factor * height, : factor * width]
        pictures.append(picture)
    return pictures


def consistent(denoise: Denoiser, low_res: Image, factor: int) -> Denoiser:
    """x_0_hat + A+ (y - A x_0_hat), y = low_res  (Wang et al. 2023, DDNM; Irani & Peleg 1991).

    A is the filter with which training shrinks pictures, and A+ enlarges bicubically. The true
    picture is not changed by this, and a guess whose colours drift is corrected. The detail, which
    A does not see, is left to the network.
    """

    def projected(x_t: Image, logsnr_t: LogSnr) -> Image:
        x_0_hat = x_0_of(denoise(x_t, logsnr_t))
        missing = low_res - shrink(x_0_hat, factor)
        return x_0_hat + pixels.resize(missing, *x_0_hat.shape[1:3])

    return projected


def at_least(picture: Image, task: Denoising) -> Resized:
    """The picture, extended to the side of a tile by repeating its last row and column."""
    assert task.low_res_px is not None
    more = [(0, max(0, task.low_res_px - side)) for side in picture.shape[1:3]]
    return jnp.pad(picture, ((0, 0), *more, (0, 0)), mode="edge")


def num_tiles(task: Denoising, height_px: int, width_px: int) -> int:
    """The number of tiles that cover a small picture of this size."""
    side = task.low_res_px
    assert side is not None
    down, across = (len(starts(max(n, side), side, side // OVERLAP)) for n in (height_px, width_px))
    return down * across


def upscale_stage(
    params: Params,
    columns: Columns,
    keys: PRNGKeys,
    *,
    task: Denoising,
    settings: SampleSettings,
    faithful: bool,
) -> Resized:
    """`sampling.sample` with a denoiser that works on the picture tile by tile."""
    keys, low_res = rng.stream(keys, task.name), columns["low_res"]
    given = given_by(task.conditions, columns, keys, settings)
    b, height, width, c = given["low_res"].shape
    side = task.size_px

    def denoise_at(x_t: Image, logsnr_t: LogSnr, corner: Int[Array, "2"]):
        part = jax.lax.dynamic_slice(
            given["low_res"], (0, corner[0], corner[1], 0), (b, side, side, c)
        )
        told = {**given, "low_res": part}
        return denoiser(params, told, columns, task=task, settings=settings)(x_t, logsnr_t)

    overlap = task.factor * (side // task.factor // OVERLAP)
    denoise = tiled(denoise_at, height_px=height, width_px=width, tile_px=side, overlap_px=overlap)
    if faithful:
        denoise = consistent(denoise, low_res, task.factor)
    image = sampler.sample(
        denoise,
        rng.normal(rng.stream(keys, "x_T"), given["low_res"].shape),
        logsnrs=spacing.SPACINGS[settings.spacing](task.schedule_of(params), settings.num_steps),
        step=sampler.by_name(settings.sampler, settings.noise),
        key=rng.stream(keys, "steps"),
    )
    return jnp.clip(image, -1.0, 1.0)
