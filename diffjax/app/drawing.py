"""Makes the page's pictures one stage at a time, and keeps them in a folder.

The small pictures can be shown while the large ones are being made. Each picture has the same
bytes as that of `rows.make`, and so of `diffjax.sample`.
"""

import dataclasses
import functools
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Array, Bool, UInt8

from diffjax.app.limits import GUIDANCE_STEP, MAX_GUIDANCE, MAX_STEPS, Told, Wish
from diffjax.app.uploads import Painting
from diffjax.build.guides import classifiers
from diffjax.core.json_types import Json, JsonObject
from diffjax.core.types import Resized
from diffjax.diffusion.sampling.spacing import ON_A_TABLE, table_steps
from diffjax.editing import inpaint, request
from diffjax.generation import folder, recipe
from diffjax.generation import rows as rows_lib
from diffjax.generation.chain import Cascade, generate
from diffjax.generation.jobs import Job
from diffjax.images import png, square
from diffjax.tasks.conditions import Class
from diffjax.tasks.task import Columns

Picture = UInt8[np.ndarray, "_ _ 3"]
# (columns, seeds=...) -> an iterator that gives the pictures of one stage after the other.
Run = Callable[..., Iterator[Resized]]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A finished picture: of which job and which stage, both counted from 0."""

    index: int
    stage: int
    picture: Picture


def told_of(trained: Cascade) -> Told:
    """What the stages are told, and what a visitor can set."""
    first = trained.stages[0]
    label = first.task.condition(Class)
    guided = any(stage.task.classifier for stage in trained.stages)
    on_a_table = first.settings.spacing in ON_A_TABLE
    return Told(
        text=trained.encoder is not None,
        classes=trained.classes,
        weighed=trained.encoder is not None or (label is not None and label.null),
        scaled=guided,
        must_scale=guided and not any(isinstance(one, Class) for one in trained.conditions),
        steps=min(MAX_STEPS, table_steps(first.task.schedule) if on_a_table else MAX_STEPS),
    )


def at_start(trained: Cascade) -> Cascade:
    """The cascade with the settings with which the page begins: those of its configs.

    There are no more steps than a visitor may ask for, and a classifier guides with the scale of
    its stage's config, or with 1.
    """
    settings = [stage.settings for stage in trained.stages]
    fewer = min(settings[0].num_steps, told_of(trained).steps)
    settings[0] = dataclasses.replace(settings[0], num_steps=fewer)
    for i, stage in enumerate(trained.stages):
        if stage.task.classifier is not None:
            scale = stage.task.settings.classifier_guidance or 1.0
            near = min(round(scale / GUIDANCE_STEP) * GUIDANCE_STEP, MAX_GUIDANCE)
            settings[i] = dataclasses.replace(settings[i], classifier_guidance=float(near))
    return trained.with_settings(settings)


def wished(trained: Cascade, wish: Wish) -> Cascade:
    """The cascade with the visitor's settings for its first stage; later stages keep theirs.

    At scale 0 a classifier is left out, as if there were none.
    """
    settings = [
        dataclasses.replace(
            stage.settings, classifier_guidance=wish.scale if stage.task.classifier else 0.0
        )
        for stage in trained.stages
    ]
    first = dataclasses.replace(settings[0], guidance_weight=wish.guidance, num_steps=wish.steps)
    return classifiers.needed(trained.with_settings([first, *settings[1:]]), asked=False)


def draw(trained: Cascade, jobs: Sequence[Job]) -> Iterator[Drawn]:
    """Draws the jobs: first the small pictures of all, which are soon made, then the next stage."""

    def run(columns: Columns, *, seeds: Array) -> Iterator[Resized]:
        for stage in trained.stages:
            (picture,) = generate([stage], columns, seeds=seeds)
            columns = {**columns, "low_res": picture}
            yield picture

    return by_stages(trained, jobs, run)


def paint(trained: Cascade, jobs: Sequence[Job], painting: Painting) -> Iterator[Drawn]:
    """Draws the masked part of a painting anew, in the order of `draw`; see `inpaint.inpaint`."""
    size_px = trained.stages[-1].task.size_px
    picture, mask = squared(painting, size_px)
    run = functools.partial(
        inpaint.inpainted,
        trained.stages,
        picture=request.repeated_image(picture),
        mask=request.repeated(mask[:, :, None]),
    )
    return by_stages(trained, jobs, run)


def squared(painting: Painting, size_px: int) -> tuple[Picture, Bool[np.ndarray, "s s"]]:
    """The middle square of the picture and of the mask, resized to `size_px` on a side."""
    return square.fit_square(painting.picture, size_px), square.fit_square_mask(
        painting.mask, size_px
    )


def by_stages(trained: Cascade, jobs: Sequence[Job], run: Run) -> Iterator[Drawn]:
    """The pictures that `run` makes of the jobs, stage by stage.

    The jobs are batched as in `rows.make`, so the pictures have the same bytes.
    """
    embed, tell = rows_lib.embedder(trained), rows_lib.teller(trained)
    calls, first = [], 0
    for padded, count in rows_lib.in_calls(jobs):
        columns, seeds = rows_lib.inputs_of(padded, embed, trained.conditions, tell=tell)
        calls.append((first, count, run(columns, seeds=seeds)))
        first += count
    for stage in range(len(trained.stages)):
        for first, num, stages in calls:
            for i, picture in enumerate(rows_lib.to_bytes(next(stages))[:num]):
                yield Drawn(first + i, stage, picture)


def drawn_of(job: Job, trained: Cascade) -> list[JsonObject]:
    """The metadata of the picture of each stage, as `diffjax.sample` writes them."""
    return [recipe.to_json(one) for one in folder.recipes_of(job, trained)]


def painted_of(job: Job, trained: Cascade, painting: Painting) -> list[JsonObject]:
    """The metadata of the picture of each stage, as `diffjax.edit inpaint` writes them."""
    prompts = [] if trained.encoder is None else [job.prompt]
    ask = request.Ask(
        "inpaint", [painting.picture], prompts, [job.seed], painting.mask, job.negative
    )
    resample: list[Json] = [*inpaint.default_resample(trained.stages)]
    said = {"strength": ask.strength, **request.describe(ask), "resample": resample}
    return request.metadata_of(job, trained, ask, said)


def keep(folder: Path, job: Job, made: Drawn, said: Sequence[JsonObject]) -> Path:
    """Writes a picture under a name that nobody can guess, and returns its path.

    said: the metadata of each stage's picture.

    Raises:
      StorageError: the disk does not take it.
    """
    path = new_place(folder) / f"seed{job.seed}_{len(made.picture)}px.png"
    png.write(path, made.picture, said[made.stage])
    return path


def new_place(folder: Path) -> Path:
    """A new folder in it with a name that nobody can guess (see `room.DRAWN_DIGITS`)."""
    place = folder / secrets.token_hex(16)
    place.mkdir(mode=0o700)
    return place


def forget(paths: Sequence[Path]) -> None:
    """Deletes pictures that `keep` wrote."""
    for path in paths:
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            path.parent.rmdir()
