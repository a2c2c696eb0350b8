"""Makes and writes films between prompts or pictures, for `diffjax.edit interpolate`."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffjax.core.errors import require
from diffjax.core.json_types import JsonObject
from diffjax.core.types import Resized
from diffjax.editing import morph, request
from diffjax.editing.morph import Prompt
from diffjax.editing.request import Ask, Picture, Place
from diffjax.generation.chain import Cascade, TrainedStage
from diffjax.generation.jobs import Job
from diffjax.generation.rows import embedded, in_calls, pictures_of
from diffjax.images import film, pixels, square
from diffjax.logs.progress import Progress

# Sampling steps of a path between pictures. Its ends are noises, found by inverting these steps.
PATH_STEPS = 32
# How often the first stage draws the frames only to measure how far they are apart.
PACE_ROUNDS = 2
SHEET_FRAMES = 8
# A film's frames are all in memory at once, because the writers of films need that.
MAX_BYTES = 2_000_000_000
HOLD_MS = 800
# (weights of the frames, n) -> for each frame the pictures of the first n stages.
Walk: TypeAlias = Callable[[np.ndarray, int], Iterator[list[Picture]]]


@dataclasses.dataclass(frozen=True)
class Reel:
    """How a film is made.

    frames: from one end to the next, both included. ms: milliseconds per frame. bounce: play it
    backwards afterwards. png: write each frame as a PNG too. even: space the frames so that the
    picture changes equally from each frame to the next; otherwise the weight does.
    """

    frames: int
    ms: int
    bounce: bool = False
    png: bool = False
    even: bool = True


def write_film(
    trained: Cascade,
    ask: Ask,
    where: Place,
    reel: Reel,
    leg_to: Callable[[int], Walk] | None = None,
    more: JsonObject | None = None,
) -> Path:
    """Writes a film as WebP and GIF and a sheet of its frames; returns the WebP's path.

    leg_to: gives the path from an end to the next, if it is not that of `leg_of`. more: what the
    metadata say beside the request.

    Raises:
      ConfigError: the request is impossible, or a file of its name is there already.
      StorageError: the disk does not take a file.
    """
    ends = max(len(ask.pictures), len(ask.prompts))
    first = trained.stages[0].task
    require(not first.low_res_px, "--stages", first.name, "a path needs a base stage first")
    seeds = list(ask.seeds) * (ends if len(ask.seeds) == 1 else 1)
    weights = np.linspace(0.0, 1.0, reel.frames, dtype=np.float32)
    # the last frame of a leg is the first frame of the next
    count, size_px = (ends - 1) * (reel.frames - 1) + 1, trained.stages[-1].task.size_px
    most = MAX_BYTES // (3 * size_px**2)
    what = f"{count} frames of {size_px} px do not fit into memory; at most {most} in all"
    require(count <= most, "--frames", reel.frames, what)
    sheet = f"{ask.kind}_grid.png"
    stills = [f"{ask.kind}_{i:04d}_{size_px}px.png" for i in range(count if reel.png else 0)]
    films = [path.name for path in film.film_paths(Path(ask.kind))]
    where.check([*films, *stills, sheet])
    said = said_of(ask, seeds, reel, more)
    job = Job(ask.prompts[0] if ask.prompts else "", seeds[0], ask.negative)
    data = request.metadata_of(job, trained, ask, said)[-1]
    frames: list[Picture] = []
    with Progress(count, "frames") as progress:
        for leg in range(ends - 1):
            walk = leg_to(leg) if leg_to else leg_of(trained, ask, seeds, leg)
            paced = weights
            for _ in range(PACE_ROUNDS * reel.even):
                small = np.stack([row[0] for row in walk(paced, 1)]).astype(np.float32)
                paced = morph.even_weights(paced, small)
            for *_, picture in walk(paced[bool(leg) :], len(trained.stages)):
                if reel.png:
                    where.write(stills[len(frames)], picture, data)
                frames.append(picture)
                progress.tick()
    shown = film.evenly_spaced(count, SHEET_FRAMES)
    path = request.write_sheet(where, sheet, [[frames[i]] for i in shown], [f"{i}" for i in shown])
    if reel.bounce:
        frames += frames[-2:0:-1]
    written = film.write(
        path.with_name(ask.kind),
        frames,
        ms=reel.ms,
        hold_ms=reel.ms if reel.bounce else HOLD_MS,
        metadata=data if where.metadata else None,
    )
    return written[0]


def said_of(
    ask: Ask, seeds: Sequence[int], reel: Reel, more: JsonObject | None = None
) -> JsonObject:
    """What the metadata of a film and of its frames say of the request."""
    return {
        "prompts": [*ask.prompts],
        "seeds": [*seeds],
        "frames": reel.frames,
        "even": reel.even,
        **(more or {}),
        **request.describe(ask),
    }


def leg_of(trained: Cascade, ask: Ask, seeds: Sequence[int], leg: int) -> Walk:
    """The path from end `leg` to the next: (weights, n) -> frames of the first n stages."""
    embed = functools.partial(embedded, trained.text_encoder())
    prompts = [ask.prompts[i] if ask.prompts else "" for i in (leg, leg + 1)]
    start, end = (Prompt(*embed([prompt])) for prompt in prompts)
    if ask.pictures:
        size_px = trained.stages[-1].task.size_px
        pair = [square.fit_square(one, size_px, ask.fit) for one in ask.pictures[leg : leg + 2]]
        both = pixels.from_uint8(jnp.asarray(np.stack(pair)))
        noises = morph.noises_of(trained.stages, start, end, both, seed=seeds[0])
    negative = embed([ask.negative]) if ask.negative is not None else None

    def run(stages: Sequence[TrainedStage], weights: Array) -> list[Resized]:
        if ask.pictures:
            own = noises[: len(stages)]
            return morph.between_pictures(stages, start, end, own, weights, seed=seeds[0])
        pair = (seeds[leg], seeds[leg + 1])
        return morph.between_prompts(stages, start, end, weights, seeds=pair, negative=negative)

    def walk(weights: np.ndarray, num_stages: int) -> Iterator[list[Picture]]:
        for padded, count in in_calls(list(weights)):
            yield from pictures_of(run(trained.stages[:num_stages], jnp.array(padded)), count)

    return walk
