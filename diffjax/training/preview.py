"""A sheet of pictures from fixed prompts and seeds, to see the training by."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffjax.build import build
from diffjax.data import pipeline
from diffjax.data.record import Record, RecordSource
from diffjax.devices import mesh, processes
from diffjax.encoders.cache import cache
from diffjax.images import pixels
from diffjax.images import sheet as sheet_lib
from diffjax.logs import writer
from diffjax.tasks import sampling
from diffjax.tasks.denoising import shrink
from diffjax.tasks.text import mask_from_length
from diffjax.training.program import Program


class Preview:
    """Samples the stage while it is trained; the prompts are those of the config or the data's.

    A super-resolution stage starts from the data's own pictures made small, and shows what it
    got, what it made, and the true picture side by side. With several processes all call it, and
    the first writes.
    """

    def __init__(
        self,
        options: ConfigDict,
        program: Program,
        records: RecordSource,
        embeddings: cache.Embeddings,
        workdir: Path,
        log: writer.Log,
    ):
        self._stage, self._mesh = program.stage, program.place.mesh
        self._log, self._folder = log, workdir / "samples"
        self._settings = build.settings_of(options)
        count = min(options.sample.num_images, len(records))
        shown = [records[i * len(records) // count] for i in range(count)]
        self._captions = [record["captions"][0] for record in shown]
        if options.sample.prompts and not self._stage.low_res_px:
            self._captions = list(options.sample.prompts)
            encoder = build.encoder_of(options)
            embeddings = cache.ensure(cache.users_path(encoder), encoder, self._captions)
            shown = [
                Record(image=shown[0]["image"], captions=(prompt,), name="")
                for prompt in self._captions
            ]
        self._batch = next(
            pipeline.eval_batches(
                shown,
                batch_size=len(shown),
                size_px=options.data.size_px,
                embed=embeddings.__getitem__,
                max_length=options.text.max_tokens,
            )
        )

    def __call__(self, step: int, params: Any) -> Path:
        """Sample with these parameters, write samples/STEP.png, and log it."""
        batch = self._batch
        text = jnp.asarray(batch["text"], jnp.float32)
        mask = mask_from_length(jnp.asarray(batch["text_length"]), text.shape[1])
        low_res = None
        if self._stage.low_res_px:
            truth = pixels.from_uint8(jnp.asarray(batch["image"]))
            low_res = shrink(truth, self._stage.factor)
        inputs = mesh.everywhere((text, mask, jnp.arange(len(text)), low_res), self._mesh)
        text, mask, seeds, given = inputs
        trained = sampling.TrainedStage(self._stage, params, self._settings)
        (made,) = sampling.generate([trained], text, mask, seeds=seeds, low_res=given)
        columns = [np.asarray(pixels.to_uint8(jnp.asarray(mesh.fetch(made))))]
        if low_res is not None:
            columns = [np.asarray(pixels.to_uint8(low_res)), *columns, batch["image"]]
        path = self._folder / f"{step:07d}.png"
        if processes.is_first():
            rows = list(zip(*columns, strict=True))
            tile_px = min(self._stage.size_px * 2, 256)
            sheet = sheet_lib.contact_sheet(rows, self._captions, tile_px=tile_px)
            sheet_lib.save(sheet, path)
            self._log.image(step, "samples", np.asarray(sheet))
            print(f"samples: {path}", flush=True)
        return path
