"""Makes and writes what a decoder of vectors makes of a person's pictures, for `diffjax.edit`."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffjax.core.errors import require
from diffjax.core.json_types import JsonObject
from diffjax.core.types import Resized
from diffjax.editing import request, unclip
from diffjax.editing.interpolate import Reel, Walk, write_film
from diffjax.editing.request import Ask, Picture, Place
from diffjax.editing.unclip import Pair
from diffjax.encoders.clip.captions import of_prompts
from diffjax.encoders.clip.encoder import Clip
from diffjax.generation.chain import Cascade, TrainedStage
from diffjax.generation.rows import in_calls, pictures_of
from diffjax.generation.telling import is_told_vectors
from diffjax.images import pixels, square
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Columns

# The kinds of edits of which this is the only way; a path between pictures may go by it.
KINDS = ("variations", "diff")
# (columns, seeds=...) -> the pictures of all stages, as `request.edited` wants it.
Edit = Callable[..., list[Resized]]


def check_decoder(trained: Cascade) -> None:
    """Checks that the first stage is a decoder.

    Raises:
      ConfigError: it is told no vector of a picture.
    """
    first = trained.stages[0].task
    what = "is told no vector of a picture; this needs a decoder of configs/decoder.py first"
    require(is_told_vectors(first), "--stages", first.name, what)


def settings_of(stages: Sequence[TrainedStage], kind: str) -> list[SampleSettings]:
    """How the stages are sampled for one of KINDS: without guidance, the first one by DDIM.

    Variations draw all noise anew, and the frames of a text diff draw none.
    """
    plain = [dataclasses.replace(one.settings, guidance_weight=1.0) for one in stages]
    eta = 1.0 if kind == "variations" else 0.0
    return [dataclasses.replace(plain[0], sampler="ddim", noise=eta), *plain[1:]]


def write_variations(trained: Cascade, clip: Clip, ask: Ask, where: Place) -> Path:
    """Writes a variation of a picture for each seed, of all stages; returns the path of a sheet.

    The noise of the first stage's settings is eta, see `unclip.pictures_of`.

    Raises:
      ConfigError: a file of its name is there already.
      StorageError: the disk does not take a file.
    """
    return request.write_redrawn(trained, ask, where, how=variations(trained, clip, ask))


def variations(trained: Cascade, clip: Clip, ask: Ask) -> tuple[Edit, JsonObject]:
    """(what makes variations of the request's picture, what their metadata say of it)."""
    pair, eta = seen(trained, clip, ask, 0), trained.stages[0].settings.noise
    return functools.partial(_varied, pair=pair, eta=eta), {"eta": eta}


def vary(trained: Cascade, clip: Clip, ask: Ask) -> Iterator[list[Picture]]:
    """For each seed of the request, in order, the variation of its picture by every stage."""
    edit, _ = variations(trained, clip, ask)
    given = request.repeated_image(ask.pictures[0])
    edit = functools.partial(edit, trained.stages, picture=given)
    return request.edited(trained, ask.jobs(), edit, ask)


def write_interpolation(trained: Cascade, clip: Clip, ask: Ask, where: Place, reel: Reel) -> Path:
    """Writes a film from picture to picture, by their vectors and noises; returns its path.

    Raises as `write_film` does.
    """

    return write_film(trained, ask, where, reel, lambda leg: path_between(trained, clip, ask, leg))


def path_between(trained: Cascade, clip: Clip, ask: Ask, leg: int = 0) -> Walk:
    """The path from picture `leg` of the request to the next one."""
    start, end = (seen(trained, clip, ask, i) for i in (leg, leg + 1))
    return _walk(trained, lambda weights: unclip.between(start, end, weights), ask.seeds[0])


def write_diff(
    trained: Cascade, clip: Clip, ask: Ask, where: Place, reel: Reel, theta: float
) -> Path:
    """Writes a film of a picture that changes as its second prompt differs from the first.

    theta: how far the last frame goes, see `unclip.turned`.

    Raises:
      ConfigError: both prompts have the same vector; or as `write_film`.
      StorageError: the disk does not take a file.
    """
    walk = path_of_diff(trained, clip, ask, theta)
    return write_film(trained, ask, where, reel, lambda leg: walk, {"theta": theta})


def path_of_diff(trained: Cascade, clip: Clip, ask: Ask, theta: float) -> Walk:
    """The path of the request's picture as its second prompt differs from the first.

    Raises:
      ConfigError: both prompts have the same vector.
    """
    text, to = (jnp.asarray(of_prompts(clip, [prompt])) for prompt in ask.prompts)
    same = bool(np.allclose(text, to, atol=1e-6))
    require(
        not same, "--prompt", ask.prompts[1][:40], "means the same as the first one to the CLIP"
    )
    pair = seen(trained, clip, ask, 0)
    turned = lambda weights: unclip.turned(pair, text, to, theta * weights)  # noqa: E731
    return _walk(trained, turned, ask.seeds[0])


def seen(trained: Cascade, clip: Clip, ask: Ask, index: int) -> Pair:
    """The pair of a picture of the request."""
    stages = trained.stages
    given = square.fit_square(ask.pictures[index], stages[-1].task.size_px, ask.fit)[None]
    vector, picture = jnp.asarray(clip.of_pictures(given)), pixels.from_uint8(jnp.asarray(given))
    return unclip.pair_of(stages, vector, picture, seed=ask.seeds[0])


def _varied(
    stages: Sequence[TrainedStage],
    columns: Columns,
    *,
    picture: Resized,
    seeds: Array,
    pair: Pair,
    eta: float,
) -> list[Resized]:
    """Variations of the pair, for as many seeds as there are."""
    rows = Pair(*(jnp.repeat(x, len(seeds), axis=0) for x in pair))
    return unclip.pictures_of(stages, rows, seeds=seeds, eta=eta)


def _walk(trained: Cascade, pairs_at: Callable[[Array], Pair], seed: int) -> Walk:
    """The pictures of the pairs at some weights."""

    def walk(weights: np.ndarray, num_stages: int) -> Iterator[list[Picture]]:
        for padded, count in in_calls(list(weights)):
            pairs = pairs_at(jnp.array(padded))
            seeds = jnp.full(len(padded), seed, jnp.int32)
            stages, eta = trained.stages[:num_stages], trained.stages[0].settings.noise
            made = unclip.pictures_of(stages, pairs, seeds=seeds, eta=eta)
            yield from pictures_of(made, count)

    return walk
