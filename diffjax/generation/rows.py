"""What was asked for, made: jobs to pictures, the same ones in whatever company.

On CPUs every picture goes through the very same compiled program, alone, so that neither its
batch, nor its place in it, nor the other prompts change a bit. Accelerators get full batches.
"""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from diffjax.build.loading import devices
from diffjax.core.types import Resized, Text, TextMask
from diffjax.devices import mesh
from diffjax.encoders.t5 import TextEncoder
from diffjax.generation.chain import Cascade
from diffjax.generation.jobs import Job
from diffjax.images import pixels
from diffjax.tasks import sampling

# Pictures per call on accelerators, or as many as there are devices; every call has as many rows,
# so that one program serves all.
BATCH = 8
KEPT_EMBEDDINGS = 256


def make(trained: Cascade, jobs: Sequence[Job]) -> Iterator[list[UInt8[np.ndarray, "_ _ 3"]]]:
    """For each job, in order, the pictures of all stages, small to large."""
    embed = functools.lru_cache(maxsize=KEPT_EMBEDDINGS)(
        lambda prompt: embedded(trained.encoder, [prompt])
    )
    rows = rows_per_call()
    for first in range(0, len(jobs), rows):
        some = jobs[first : first + rows]
        padded = [*some, *[some[-1]] * (rows - len(some))]
        inputs = inputs_of(padded, embed)
        pictures = sampling.generate(
            trained.stages, *inputs[:2], seeds=inputs[2], negative=inputs[3]
        )
        stages = [to_bytes(picture) for picture in pictures]
        yield from [list(row) for row in zip(*stages, strict=True)][: len(some)]


def rows_per_call() -> int:
    """1 on a CPU; else BATCH, rounded up to a multiple of the devices."""
    here = devices()
    return 1 if here[0].platform == "cpu" else -(-BATCH // len(here)) * len(here)


def embedded(encoder: TextEncoder, prompts: Sequence[str]) -> tuple[Text, TextMask]:
    """(embeddings, mask) of the prompts, in the precision of those that stages are trained on.

    Each is encoded alone: beside others its embeddings could be rounded differently.
    """
    parts = [encoder.encode([prompt], encoder.max_length) for prompt in prompts]
    text, mask = (jnp.concatenate(rows) for rows in zip(*parts, strict=True))
    return text.astype(jnp.bfloat16).astype(jnp.float32), mask


def inputs_of(jobs: Sequence[Job], embed) -> tuple[Text, TextMask, Array, tuple | None]:
    """Text, mask, seeds and the negative text of a call, its rows split over the devices.

    embed(prompt) gives the embeddings and the mask of one prompt.

    Raises:
      ValueError: some of the jobs have a negative prompt and some have none.
    """
    split = mesh.batch_sharding(mesh.make_mesh(devices=devices()))
    stacked = lambda prompts: tuple(  # noqa: E731
        jnp.concatenate(parts) for parts in zip(*map(embed, prompts), strict=True)
    )
    text, mask = stacked([job.prompt for job in jobs])
    seeds = jnp.array([job.seed for job in jobs], jnp.int32)
    negatives = [job.negative for job in jobs if job.negative is not None]
    if len(negatives) not in (0, len(jobs)):
        raise ValueError(
            f"{len(negatives)} of {len(jobs)} jobs have a negative prompt: all or none"
        )
    negative = stacked(negatives) if negatives else None
    return jax.device_put((text, mask, seeds, negative), split)


def to_bytes(pictures: Resized) -> UInt8[np.ndarray, "b _ _ 3"]:
    """Pictures in [-1, 1] as bytes on this machine."""
    return np.asarray(pixels.to_uint8(pictures))
