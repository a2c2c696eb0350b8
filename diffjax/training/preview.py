"""A sheet of pictures from fixed prompts and seeds, to see the training by."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffjax.build import build
from diffjax.data import pipeline, readers
from diffjax.data.record import Record, RecordSource, clean
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
        shown: list[Record]
        if options.sample.prompts and not self._stage.low_res_px:
            shown = [{"captions": (prompt,)} for prompt in options.sample.prompts]
            encoder = build.encoder_of(options)
            prompts = filter(None, map(clean, options.sample.prompts))
            embeddings = cache.ensure(cache.users_path(encoder), encoder, prompts)
        else:
            shown = [records[i * len(records) // count] for i in range(count)]
        needed = [readers.text(embeddings.embed, options.text.max_tokens), readers.caption]
        if self._stage.low_res_px:
            needed.append(readers.picture(options.data.size_px))
        # Of these few any may be broken: the run itself counts them.
        batches = pipeline.eval_batches(shown, needed, batch_size=len(shown), max_broken=1.0)
        self._batch = next(batches)
        self._captions = [str(caption) for caption in self._batch["caption"]]

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
