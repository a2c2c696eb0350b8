"""The three ways to tell a decoder a prompt, side by side (Ramesh et al. 2022, fig. 8)."""

import dataclasses
import itertools
from pathlib import Path

from diffjax.core.errors import require
from diffjax.editing import request
from diffjax.editing.by_vector import check_decoder
from diffjax.editing.request import Ask, Place
from diffjax.encoders.clip.encoder import Clip
from diffjax.generation import folder, rows
from diffjax.generation.chain import Cascade
from diffjax.generation.jobs import all_jobs
from diffjax.generation.telling import Teller
from diffjax.logs.progress import Progress


def write_ways(trained: Cascade, clip: Clip, ask: Ask, where: Place) -> Path:
    """Writes the pictures of each prompt and seed by the caption alone, the text's vector, a prior.

    The noise is the same in all. Returns the path of a sheet, with a row for each prompt and way.

    Raises:
      ConfigError: there is no prior, or a file of its name is there already.
      StorageError: the disk does not take a file.
    """
    check_decoder(trained)
    first = trained.stages[0].task.name
    require(
        trained.teller is not None, "--stages", first, "wants a prior beside it (docs/unclip.md)"
    )
    ways = {"caption": None, "text": Teller("text", clip), "prior": trained.teller}
    prompts, seeds = list(dict.fromkeys(ask.prompts)), list(dict.fromkeys(ask.seeds))
    size_px, sheet = trained.stages[-1].task.size_px, "ways_grid.png"
    names = {
        (i, way): [f"ways_{i:04d}_{way}_seed{seed}_{size_px}px.png" for seed in seeds]
        for i, way in itertools.product(range(len(prompts)), ways)
    }
    where.check([*itertools.chain(*names.values()), sheet])
    cells, captions = [], []
    with Progress(len(names) * len(seeds)) as progress:
        for (i, way), files in names.items():
            whole, row = dataclasses.replace(trained, teller=ways[way]), []
            jobs = all_jobs([prompts[i]], seeds)
            for name, job, pictures in zip(files, jobs, rows.make(whole, jobs), strict=True):
                data = request.metadata_of(job, whole, ask, {"way": way})[-1]
                where.write(name, pictures[-1], data)
                row.append(pictures[-1])
                progress.tick()
            cells.append(row)
            captions.append(f"{way}: {folder.caption(prompts[i])}")
    return request.write_sheet(where, sheet, cells, captions)
