"""Makes the page's pictures one stage at a time, and keeps them in a folder.

The small pictures can be shown while the large ones are being made. Each picture has the same
bytes as that of `rows.make`, and so of `diffjax.sample`.
"""

import dataclasses
import functools
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Bool, UInt8

from diffjax.app.limits import GUIDANCE_STEP, MAX_GUIDANCE, MAX_STEPS, Painting, Told, Wish
from diffjax.build.guides import classifiers
from diffjax.core.json_types import Json, JsonObject
from diffjax.core.types import Resized
from diffjax.diffusion.sampling.spacing import ON_A_TABLE, table_steps
from diffjax.editing import inpaint, request
from diffjax.generation import best, folder, recipe
from diffjax.generation import rows as rows_lib
from diffjax.generation.chain import Cascade, generate
from diffjax.generation.jobs import Job
from diffjax.images import png, square
from diffjax.tasks import sampling
from diffjax.tasks.conditions import Class
from diffjax.tasks.task import Columns

# Of so many settings programs are kept.
MOST_PROGRAMS = 32
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
    place = folder / secrets.token_hex(16)
    place.mkdir(mode=0o700)
    path = place / f"seed{job.seed}_{len(made.picture)}px.png"
    png.write(path, made.picture, said[made.stage])
    return path


def forget(paths: Sequence[Path]) -> None:
    """Deletes pictures that `keep` wrote."""
    for path in paths:
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            path.parent.rmdir()


def warm_up(trained: Cascade, say: Callable[[str], None], score: best.Score | None = None) -> None:
    """Runs the programs of the page's first settings once, so that they are compiled."""
    size_px = trained.stages[-1].task.size_px
    mask = np.zeros((size_px, size_px), bool)
    mask[: size_px // 2] = True
    blank = Painting(np.full((size_px, size_px, 3), 255, np.uint8), mask)
    told = told_of(trained)
    label = 0 if told.classes is not None and not told.text else None
    jobs = [Job("a picture" if told.text else "", 0, label=label)]
    kinds = {"drawing": draw(trained, jobs), "drawing anew": paint(trained, jobs, blank)}
    since = time.monotonic()
    for kind, pictures_ in kinds.items():
        for made in pictures_:
            name = trained.stages[made.stage].task.name
            say(f"compiled {kind}, {name}: {time.monotonic() - since:.1f} s")
            since = time.monotonic()
    if score is not None:
        score(jobs[0].prompt, blank.picture)
        say(f"compiled the CLIP: {time.monotonic() - since:.1f} s")


class Programs:
    """Counts the settings for which programs were compiled, and forgets all if there are many.

    JAX keeps about 3 MB for each even after `sampling.compiled` has forgotten it. To be called by
    one thread, before it draws.
    """

    def __init__(self, most: int = MOST_PROGRAMS):
        self._most = most
        self._used: set[tuple[float, int, float]] = set()

    def use(self, wish: Wish) -> None:
        """Note the settings of a wish; if they are one too many, forget all programs first."""
        settings = (wish.guidance, wish.steps, wish.scale)
        if settings not in self._used and len(self._used) >= self._most:
            sampling.compiled.cache_clear()
            jax.clear_caches()
            self._used.clear()
        self._used.add(settings)


def keep_no_more_programs() -> None:
    """Stops writing compiled programs to disk, since visitors' settings could fill it."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)
