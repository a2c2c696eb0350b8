"""Turns jobs into pictures. A picture does not depend on which others are in its batch.

On CPUs every picture is a call of its own of the same compiled program, because rounding depends
on the size of a batch and on the place in it. Accelerators get full batches; there, the last bits
of a picture may depend on the others.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from diffjax.core.types import Resized, Text, TextMask
from diffjax.devices import mesh
from diffjax.devices.mesh import sampling_devices
from diffjax.encoders.t5 import TextEncoder
from diffjax.generation.chain import Cascade, generate, prompt_columns
from diffjax.generation.jobs import Job
from diffjax.images import pixels

# Pictures per call on accelerators; more if there are more devices.
BATCH = 8
KEPT_EMBEDDINGS = 256

Item = TypeVar("Item")


def make(trained: Cascade, jobs: Sequence[Job]) -> Iterator[list[UInt8[np.ndarray, "_ _ 3"]]]:
    """For each job, in order, the pictures of all stages in bytes, small to large."""
    embed = functools.lru_cache(maxsize=KEPT_EMBEDDINGS)(
        lambda prompt: embedded(trained.encoder, [prompt])
    )
    for padded, count in in_calls(jobs):
        columns, seeds = inputs_of(padded, embed)
        yield from pictures_of(generate(trained.stages, columns, seeds=seeds), count)


def in_calls(items: Sequence[Item]) -> Iterator[tuple[list[Item], int]]:
    """Splits the items into lists of `rows_per_call`; yields (list, number of its own items).

    The last list is filled up with its last item, so that all calls can use one program.
    """
    rows = rows_per_call()
    for first in range(0, len(items), rows):
        some = list(items[first : first + rows])
        yield [*some, *[some[-1]] * (rows - len(some))], len(some)


def pictures_of(stages: Sequence[Resized], count: int) -> list[list[UInt8[np.ndarray, "_ _ 3"]]]:
    """For each of the first `count` rows of a call, the pictures of all stages in bytes."""
    pictures = [to_bytes(picture) for picture in stages]
    return [list(row) for row in zip(*pictures, strict=True)][:count]


def rows_per_call() -> int:
    """1 on a CPU; elsewhere BATCH, rounded up to a multiple of the number of devices."""
    here = sampling_devices()
    return 1 if here[0].platform == "cpu" else -(-BATCH // len(here)) * len(here)


def embedded(encoder: TextEncoder, prompts: Sequence[str]) -> tuple[Text, TextMask]:
    """(embeddings, mask) of the prompts, rounded to bfloat16 as those of training are.

    Each prompt is encoded alone, because its embeddings are rounded differently in a batch.
    """
    parts = [encoder.encode([prompt], encoder.max_length) for prompt in prompts]
    text, mask = (jnp.concatenate(rows) for rows in zip(*parts, strict=True))
    return text.astype(jnp.bfloat16).astype(jnp.float32), mask


def inputs_of(
    jobs: Sequence[Job], embed: Callable[[str], tuple[Text, TextMask]]
) -> tuple[dict[str, Array], Int[Array, " b"]]:
    """The columns of a call, for prompts and negative prompts, and its seeds.

    The rows are split over the devices. embed(prompt) gives the embeddings and mask of a prompt.

    Raises:
      ValueError: some of the jobs have a negative prompt and some have none.
    """
    split = mesh.batch_sharding(mesh.make_mesh(devices=sampling_devices()))

    def stacked(prompts: Sequence[str]) -> tuple[Text, TextMask]:
        texts, masks = zip(*map(embed, prompts), strict=True)
        return jnp.concatenate(texts), jnp.concatenate(masks)

    text, mask = stacked([job.prompt for job in jobs])
    seeds = jnp.array([job.seed for job in jobs], jnp.int32)
    negatives = [job.negative for job in jobs if job.negative is not None]
    if len(negatives) not in (0, len(jobs)):
        raise ValueError(
            f"{len(negatives)} of {len(jobs)} jobs have a negative prompt: all or none"
        )
    columns = prompt_columns(text, mask, stacked(negatives) if negatives else None)
    return jax.device_put((columns, seeds), split)


def to_bytes(pictures: Resized) -> UInt8[np.ndarray, "b _ _ 3"]:
    """Pictures in [-1, 1] as bytes in the host's memory."""
    return np.asarray(pixels.to_uint8(pictures))
