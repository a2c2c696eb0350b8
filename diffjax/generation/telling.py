"""Tells a decoder the vector of the picture that it is to make: a prior's, a text's or a picture's.

A prior makes the vector of a picture from the prompt (Ramesh et al. 2022, sec. 2.2). Without one,
the CLIP's vector of the prompt itself may stand in its place, or the vector of a given picture.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffjax.core import rng
from diffjax.encoders.clip.captions import of_prompts
from diffjax.encoders.clip.encoder import Clip
from diffjax.encoders.t5 import TextEncoder
from diffjax.generation.jobs import Job
from diffjax.generation.recipe import Origin, Told
from diffjax.tasks import sampling
from diffjax.tasks.conditions import Embedding
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import Params
from diffjax.tasks.vectors import IMAGE_VECTOR, TEXT_VECTOR, MakesVectors, Vectors, image_vector

By: TypeAlias = Literal["prior", "text", "picture"]
# (the jobs of a call, their seeds) -> the vector of the picture of each.
Tell: TypeAlias = Callable[[Sequence[Job], Int[Array, " b"]], Vectors]
KEPT = 256  # texts


@dataclass(frozen=True)
class Prior:
    """A trained prior, as `chain.TrainedStage`. encoder: of the texts that it is told."""

    task: MakesVectors
    params: Params
    settings: SampleSettings
    origin: Origin
    encoder: TextEncoder


@dataclass(frozen=True)
class Teller:
    """What a decoder is told of its picture, by the vectors of one CLIP.

    clip: of which the vectors are; an encoder of texts that has their vectors may stand for it.
    prior: if it is by one. vector, picture: of a given picture its vector [1 v] and the sha256 of
    its pixels.
    """

    by: By
    clip: Clip | TextEncoder
    prior: Prior | None = None
    vector: Float[np.ndarray, "1 v"] | None = None
    picture: str | None = None

    def sampled_by(self, settings: SampleSettings) -> "Teller":
        """The same with other settings of its prior."""
        assert self.prior is not None
        return replace(self, prior=replace(self.prior, settings=settings))

    def said(self) -> Told:
        """What a recipe says of it."""
        made = (self.prior.origin, self.prior.settings) if self.prior else None
        return Told(self.by, self.clip.fingerprint, made, self.picture)


def is_told_vectors(task: Denoising) -> bool:
    """Whether a stage is a decoder: whether it is told the vector of a picture by a CLIP."""
    told = task.condition(Embedding)
    return told is not None and told.of == IMAGE_VECTOR


def tell_by(teller: Teller, embed: Callable) -> Tell:
    """The function that tells it. embed: (encoder, prompts) -> their embeddings and masks."""
    of_text = functools.lru_cache(KEPT)(lambda prompt: _of_text(teller.clip, prompt, embed))
    texts = lambda jobs: jnp.concatenate([of_text(job.prompt) for job in jobs])  # noqa: E731
    prior = teller.prior
    if teller.vector is not None:
        vector = jnp.asarray(teller.vector)
        return lambda jobs, seeds: jnp.repeat(vector, len(jobs), axis=0)
    if prior is None:
        return lambda jobs, seeds: texts(jobs)
    words = functools.lru_cache(KEPT)(lambda one: embed(prior.encoder, [one]))
    run = sampling.compiled(image_vector, prior.settings)

    def tell(jobs: Sequence[Job], seeds: Int[Array, " b"]) -> Vectors:
        text, mask = (
            jnp.concatenate(rows) for rows in zip(*(words(j.prompt) for j in jobs), strict=True)
        )
        columns = {"text": text, "text_mask": mask, TEXT_VECTOR: texts(jobs)}
        made: Vectors = run(prior.params, columns, rng.per_example(seeds), task=prior.task)
        return made

    return tell


def _of_text(clip: Clip | TextEncoder, prompt: str, embed: Callable) -> Vectors:
    """The vector [1 e] of a prompt."""
    if isinstance(clip, Clip):
        return jnp.asarray(of_prompts(clip, [prompt]))
    assert clip.vectors is not None
    made: Vectors = clip.vectors(*embed(clip, [prompt]))
    return made
