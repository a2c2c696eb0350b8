"""Compares a stage that was trained with holes with RePaint of the stage that it began with.

    python -m tools.checks.inpaint_check --base runs/glide/glide64 \\
        --holes runs/inpaint/glide64 --out DIR

Both fill the same holes in the same drawings of the emoji data set, with their captions and the
same seeds. Printed: PSNR inside the holes against the truth, and how often the nearest of all
drawings is the very one. Written: a sheet of drawings with a hole, both answers, and the truth.
"""

import argparse
import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8

from diffjax.build.stages import loading
from diffjax.core import command
from diffjax.core.errors import Ending
from diffjax.devices import mesh
from diffjax.editing import inpaint
from diffjax.evaluation import retrieval
from diffjax.evaluation.drawings import Drawings, chosen, drawings
from diffjax.evaluation.emoji import told
from diffjax.generation.chain import Cascade
from diffjax.images import pixels, png
from diffjax.images.sheet import contact_sheet
from diffjax.tasks.settings import SampleSettings

BATCH, SHOWN = 10, 10
HIDDEN = (255, 0, 255)


def main(arguments: Sequence[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--base", type=command.path, required=True, help="trained without holes")
    flags.add_argument("--holes", type=command.path, required=True, help="trained with holes")
    flags.add_argument("--split", default="train", help="of the drawings")
    flags.add_argument("--num", type=int, default=100)
    flags.add_argument("--guidance", type=float, help="of both; else that of their configs")
    flags.add_argument("--out", type=command.path, required=True)
    given = flags.parse_args(arguments)
    mesh.keep_compilations()
    stages = {name: loading.load([place]) for name, place in
              (("RePaint", given.base), ("trained", given.holes))}  # fmt: skip
    every = drawings(stages["RePaint"].stages[0].task.size_px)
    wanted = chosen(every, given.split, given.num)
    hole = holes_of(len(wanted), every.images.shape[1])
    real = every.images[wanted]
    made = {name: filled(one, every, wanted, hole, given.guidance) for name, one in stages.items()}
    small, every_small = retrieval.small_pixels, retrieval.small_pixels(every.images)
    for name, pictures in made.items():
        rank = retrieval.ranks(small(pictures), every_small, np.array(wanted))
        print(f"{name}: PSNR in the hole {psnr_in(pictures, real, hole).mean():.2f} dB; the very "
              f"drawing is nearest to {np.mean(rank == 0):.0%} of {len(wanted)}")  # fmt: skip
    masked = np.where(hole[..., None], np.array(HIDDEN, np.uint8), real)
    rows = [[x[i] for x in (masked, made["RePaint"], made["trained"], real)] for i in range(SHOWN)]
    captions = [every.captions[i] for i in wanted[:SHOWN]]
    given.out.mkdir(parents=True, exist_ok=True)
    png.write(given.out / "holes.png", np.asarray(contact_sheet(rows, captions, tile_px=96)), None)


def holes_of(count: int, side_px: int) -> Bool[np.ndarray, "n s s"]:
    """A rectangle in each picture, of half its sides on average."""
    draw = np.random.default_rng(0)
    hole = np.zeros((count, side_px, side_px), bool)
    for one in hole:
        height, width = draw.integers(side_px // 3, 2 * side_px // 3, 2)
        top, left = draw.integers(0, (side_px - height + 1, side_px - width + 1))
        one[top : top + height, left : left + width] = True
    return hole


def filled(
    one: Cascade,
    every: Drawings,
    wanted: Sequence[int],
    hole: Bool[np.ndarray, "n s s"],
    weight: float | None,
) -> UInt8[np.ndarray, "n s s 3"]:
    """The drawings with their holes filled, in batches."""
    if weight is not None:
        settings = [stage.settings for stage in one.stages]
        one = one.with_settings([_guided(setting, weight) for setting in settings])
    assert one.encoder is not None
    made = []
    for first in range(0, len(wanted), BATCH):
        part = list(wanted[first : first + BATCH])
        (picture,) = inpaint.inpaint(
            one.stages,
            told(one.encoder, [every.captions[i] for i in part]),
            picture=pixels.from_uint8(jnp.asarray(every.images[part])),
            mask=jnp.asarray(hole[first : first + BATCH, ..., None]),
            seeds=first + jnp.arange(len(part)),
        )
        made.append(np.asarray(pixels.to_uint8(picture)))
        print(f"{one.stages[0].task.name}: {first + len(part)} of {len(wanted)}", flush=True)
    return np.concatenate(made)


def _guided(settings: SampleSettings, weight: float) -> SampleSettings:
    return dataclasses.replace(settings, guidance_weight=weight)


def psnr_in(
    made: UInt8[np.ndarray, "n s s 3"],
    real: UInt8[np.ndarray, "n s s 3"],
    hole: Bool[np.ndarray, "n s s"],
) -> np.ndarray:
    """10 log10(255^2 / mean squared error in the hole) of each picture."""
    error = (made.astype(float) - real) ** 2 * hole[..., None]
    mean = error.sum((1, 2, 3)) / (3 * hole.sum((1, 2)))
    return 10 * np.log10(255**2 / np.maximum(mean, 1e-3))


if __name__ == "__main__":
    try:
        main()
    except Ending as error:
        raise SystemExit(error.line()) from None
