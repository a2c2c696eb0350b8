"""Draws a sheet of pictures from fixed examples and seeds while a task trains."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffjax.core import rng
from diffjax.core.files import side_output
from diffjax.devices import mesh as mesh_lib
from diffjax.devices import processes
from diffjax.images import pixels, sheet
from diffjax.logs import writer
from diffjax.tasks.task import Params, Task

# Pictures of fewer than SMALL_PX pixels a side are enlarged to about READABLE_PX, so that a caption
# fits under them.
SMALL_PX, READABLE_PX = 16, 96
# Pictures that a task may have started from.
STARTED_FROM = ("low_res", "masked")


class Preview:
    """Asks the task for its preview and writes it as a sheet.

    shown: columns with a row per picture, and the caption of each row. If the task starts from a
    low-resolution picture, that picture stands left of the one that was made, and the true picture
    stands right of it. With several processes all must call this; the first one writes.
    """

    def __init__(
        self,
        task: Task,
        mesh: Mesh,
        shown: tuple[Mapping[str, np.ndarray], Sequence[str]],
        folder: Path,
        log: writer.Log,
    ):
        self._task, self._mesh, self._folder, self._log = task, mesh, folder, log
        self._batch, self._captions = shown

    def __call__(self, step: int, params: Params) -> Path:
        """Makes the preview with these parameters, writes samples/STEP.png and logs it."""
        batch = {name: jnp.asarray(column) for name, column in self._batch.items()}
        seeds = jnp.arange(len(self._captions))
        task, batch, seeds = mesh_lib.replicate((self._task, batch, seeds), self._mesh)
        columns = mesh_lib.to_host(compiled_preview()(task, params, batch, seeds))
        path = self._folder / f"{step:07d}.png"
        if processes.is_first():
            with side_output(path):
                self._write(path, step, columns)
        return path

    def _write(self, path: Path, step: int, columns: Mapping[str, np.ndarray]) -> None:
        """Draw the sheet, write it and log it."""
        pictures = [columns[name] for name in (*STARTED_FROM, "made") if name in columns]
        shown = [np.asarray(pixels.to_uint8(jnp.asarray(column))) for column in pictures]
        if any(name in columns for name in STARTED_FROM):
            shown.append(self._batch["image"])
        rows = list(zip(*shown, strict=True))
        tile_px = tile_of(columns["made"].shape[1])
        drawn = sheet.contact_sheet(rows, self._captions, tile_px=tile_px)
        sheet.save(drawn, path)
        self._log.image(step, "samples", np.asarray(drawn))
        print(f"samples: {path}", flush=True)


def tile_of(side_px: int) -> int:
    """The side at which pictures of `side_px` are shown on a sheet."""
    if side_px < SMALL_PX:
        return side_px * -(-READABLE_PX // side_px)
    return min(2 * side_px, 256)


@functools.cache
def compiled_preview() -> jax.stages.Wrapped:
    """(task, params, batch, seeds) -> the task's preview, jitted; equal tasks share a program."""

    def preview(task, params, batch, seeds):
        return task.preview(params, batch, rng.per_example(seeds))

    return jax.jit(preview)
