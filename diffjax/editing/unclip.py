"""Pictures as a decoder sees them: what they show, and the rest (Ramesh et al. 2022, sec. 3).

A picture is a pair. Its vector by a CLIP says what it shows. The noise from which DDIM makes the
picture again, given the vector, says all else. Variations keep the vector and draw new noise on the
way, interpolations move both, and text diffs turn the vector alone. No function gives the decoder
or later stages a text. Pictures are [b s s 3] in [-1, 1].
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.core import rng
from diffjax.core.types import Image, Resized
from diffjax.diffusion.sampling.inpaint import slerp
from diffjax.editing.img2img import shrink_by
from diffjax.editing.morph import LEVEL, from_noise, invertible, to_noise
from diffjax.generation.chain import TrainedStage, read_by
from diffjax.tasks.sampling import compiled, sample
from diffjax.tasks.task import Columns
from diffjax.tasks.vectors import IMAGE_VECTOR

Vectors = Float[Array, "b v"]


class Pair(NamedTuple):
    """Pictures as their vectors [b v] and their noises [b h w c] at the decoder's size."""

    vector: Vectors
    noise: Resized


def pair_of(
    stages: Sequence[TrainedStage],
    vector: Vectors,
    picture: Image,
    *,
    seed: int,
    level: float = LEVEL,
) -> Pair:
    """The pair of pictures of the last stage's size, by inverting DDIM without guidance.

    level: the pictures are first noised to it, in u, with the noise of `seed` (see `morph.LEVEL`).
    """
    (decoder,) = invertible(stages[:1])
    small = shrink_by(picture, stages[-1].task.size_px // decoder.task.size_px)
    keys = rng.per_example(jnp.full(len(vector), seed, jnp.int32))
    back = compiled(to_noise, decoder.settings, level=level)
    told = read_by(decoder.task, columns_of(stages, vector))
    return Pair(vector, back(decoder.params, told, keys, small, task=decoder.task))


def pictures_of(
    stages: Sequence[TrainedStage], pair: Pair, *, seeds: Int[Array, " b"], eta: float = 0.0
) -> list[Resized]:
    """The pictures of every stage that the pairs are of, by DDIM with noise of the seeds.

    eta: 0 makes the same small pictures for all seeds, near those that were inverted; 1 keeps only
    what the vectors say. Later stages draw from the seeds.
    """
    decoder, keys = stages[0], rng.per_example(seeds)
    settings = dataclasses.replace(decoder.settings, sampler="ddim", noise=eta)
    columns = columns_of(stages, pair.vector)
    run = compiled(from_noise, settings)
    told = read_by(decoder.task, columns)
    made = [run(decoder.params, told, keys, pair.noise, task=decoder.task)]
    for stage in stages[1:]:
        told = read_by(stage.task, {**columns, "low_res": made[-1]})
        made.append(compiled(sample, stage.settings)(stage.params, told, keys, task=stage.task))
    return made


def between(start: Pair, end: Pair, weights: Float[Array, " b"]) -> Pair:
    """Pairs on the way from one picture to another; start and end are of one row each.

    Vectors and noises move along great circles; weights 0 and 1 give the two pairs themselves.
    """
    far = jnp.repeat(start.vector, len(weights), axis=0), jnp.repeat(end.vector, len(weights), 0)
    noises = jnp.repeat(start.noise, len(weights), axis=0), jnp.repeat(end.noise, len(weights), 0)
    return Pair(slerp(*far, weights), slerp(*noises, weights))


def turned(
    pair: Pair,
    text: Float[Array, "1 v"],
    to: Float[Array, "1 v"],
    thetas: Float[Array, " b"],
) -> Pair:
    """A picture changed as one text differs from another: slerp(z_i, z_d, theta).

    pair: of one row. z_d is the direction from the vector of a `text` that describes the picture to
    that of the text it shall have. theta: 0 leaves the picture as it is; the paper goes to 0.25 to
    0.5 of the way. The noise stays the same.

    Raises:
      ValueError: the two vectors are equal, so there is no direction.
    """
    difference = to - text
    length = jnp.linalg.norm(difference)
    if not length > 1e-6:
        raise ValueError("the two texts have the same vector, so there is no way between them")
    aim = jnp.repeat(difference / length, len(thetas), axis=0)
    size = jnp.linalg.norm(pair.vector, axis=-1, keepdims=True)
    vectors = slerp(jnp.repeat(pair.vector / size, len(thetas), axis=0), aim, thetas) * size
    return Pair(vectors, jnp.repeat(pair.noise, len(thetas), axis=0))


def columns_of(stages: Sequence[TrainedStage], vector: Vectors) -> Columns:
    """What the stages read: the vectors, and nothing of all else."""
    conditions = [one for stage in stages for one in stage.task.conditions]
    nothing = {name: x for one in conditions for name, x in one.nothing(len(vector)).items()}
    return {**nothing, IMAGE_VECTOR: vector}
