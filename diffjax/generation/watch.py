"""Makes the frames of a film of denoising: the guess of the picture at each step of each stage."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from diffjax.core import rng
from diffjax.core.errors import require
from diffjax.devices.mesh import sampling_devices
from diffjax.generation import rows
from diffjax.generation.chain import Cascade, read_by
from diffjax.generation.jobs import Job
from diffjax.images.film import evenly_spaced, resize_square
from diffjax.tasks import sampling

FRAMES_PER_STAGE = 40
LEAST_SIDE_PX, MAX_SIDE_PX = 128, 512
MAX_BYTES = 4_000_000_000


def check_memory(trained: Cascade) -> None:
    """Checks that the guesses of all steps of a stage fit into memory together.

    Raises:
      ConfigError: they would take more than MAX_BYTES.
    """
    for stage in trained.stages:
        steps, size = stage.settings.num_steps, stage.task.size_px
        most = MAX_BYTES // (12 * size * size * len(sampling_devices()))
        require(steps <= most, "--steps", steps, f"--film at {size} px takes at most {most}")


def frames(
    trained: Cascade, job: Job, pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]]
) -> list[UInt8[np.ndarray, "s s 3"]]:
    """The guesses x_0_hat of every stage's steps, enlarged, stage after stage.

    The job is sampled once more, by a program that keeps the guesses. The last frame of a stage is
    its picture, from `pictures`.
    """
    count = len(sampling_devices())  # one row per device, of which the first is shown
    embed, match = rows.embedder(trained), rows.matcher(trained)
    tell = rows.teller(trained)
    columns, seeds = rows.inputs_of([job] * count, embed, trained.conditions, match, tell)
    keys = rng.per_example(seeds)
    size_px = pictures[-1].shape[0]
    side_px = min(size_px * -(-LEAST_SIDE_PX // size_px), MAX_SIDE_PX)
    out = []
    for stage, picture in zip(trained.stages, pictures, strict=True):
        run = sampling.compiled(sampling.watch, stage.settings)
        made, guesses = run(stage.params, read_by(stage.task, columns), keys, task=stage.task)
        columns = {**columns, "low_res": made}
        kept = evenly_spaced(len(guesses) - 1, FRAMES_PER_STAGE - 1)
        shown = rows.to_bytes(guesses[jnp.array(kept, int), 0])
        out += [resize_square(one, side_px) for one in (*shown, picture)]
    return out
