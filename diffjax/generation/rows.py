"""Turns jobs into pictures. A picture does not depend on which others are in its batch.

On CPUs every picture is a call of its own of the same compiled program, because rounding depends
on the size of a batch and on the place in it. Accelerators get full batches; there, the last bits
of a picture may depend on the others.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from diffjax.core.types import Resized, Text, TextMask
from diffjax.data.record import clean
from diffjax.devices import mesh
from diffjax.devices.mesh import sampling_devices
from diffjax.encoders.text import Reads, TextEncoder, TokenReader
from diffjax.generation.chain import Cascade, generate, prompt_columns
from diffjax.generation.jobs import Job
from diffjax.generation.telling import Tell, tell_by
from diffjax.images import pixels
from diffjax.tasks.conditions import NEGATIVE, SHARE, Condition, also
from diffjax.tasks.critic import CLIP_TEXT
from diffjax.tasks.text import null_text
from diffjax.tasks.vectors import IMAGE_VECTOR, TEXT_VECTOR

# Pictures per call on accelerators; more if there are more devices.
BATCH = 8
KEPT_EMBEDDINGS = 256

_to_uint8 = jax.jit(pixels.to_uint8)  # one program, not one for each of its five operations

Item = TypeVar("Item")
# prompt -> the columns of one row that stages read of it.
Embed: TypeAlias = Callable[[str], Mapping[str, Array]]
# prompt -> what a CLIP that guides compares pictures with.
Match: TypeAlias = Callable[[str], Float[np.ndarray, "1 e"]]


def make(trained: Cascade, jobs: Sequence[Job]) -> Iterator[list[UInt8[np.ndarray, "_ _ 3"]]]:
    """For each job, in order, the pictures of all stages in bytes, small to large."""
    embed, match, tell = embedder(trained), matcher(trained), teller(trained)
    for padded, count in in_calls(jobs):
        columns, seeds = inputs_of(padded, embed, trained.conditions, match, tell)
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


def embedder(trained: Cascade) -> Embed | None:
    """prompt -> its embeddings and mask, or its tokens, cached; None if no stage is told a text."""
    encoder = trained.encoder
    if encoder is None:
        return None
    keep = functools.lru_cache(maxsize=KEPT_EMBEDDINGS)
    return keep(lambda prompt: columns_of(encoder, [prompt]))


def columns_of(encoder: Reads, prompts: Sequence[str]) -> dict[str, Array]:
    """The columns that stages read of these prompts: `embedded` ones, or token ids.

    An encoder that has vectors of texts adds theirs.
    """
    if isinstance(encoder, TokenReader):
        return {"tokens": jnp.asarray(encoder.encode(prompts))}
    text, mask = embedded(encoder, prompts)
    vectors = {} if encoder.vectors is None else {TEXT_VECTOR: encoder.vectors(text, mask)}
    return {**prompt_columns(text, mask), **vectors}


def matcher(trained: Cascade) -> Match | None:
    """prompt -> the CLIP's unit vector, cached; zeros if it is blank. None if no CLIP guides.

    Each prompt is encoded alone, because rounding may depend on the others of a batch.
    """
    if trained.clip is None:
        return None
    clip = dataclasses.replace(trained.clip, batch=1)
    keep = functools.lru_cache(maxsize=KEPT_EMBEDDINGS)
    return keep(lambda prompt: clip.of_captions([prompt]) * bool(clean(prompt)))


def teller(trained: Cascade) -> Tell | None:
    """What tells a decoder the vectors of its pictures, if anything does."""
    return None if trained.teller is None else tell_by(trained.teller, embedded)


def embedded(encoder: TextEncoder, prompts: Sequence[str]) -> tuple[Text, TextMask]:
    """(embeddings, mask) of the prompts, rounded to bfloat16 as those of training are.

    A blank prompt is the null text, like a blank caption in training. Each other prompt is encoded
    alone, because its embeddings are rounded differently in a batch. An encoder may say that it
    embeds blank prompts too, and that nothing is rounded.
    """
    length = encoder.max_length

    def nothing() -> tuple[Text, TextMask]:
        return null_text(jnp.zeros((1, length, encoder.width)), jnp.zeros((1, length), bool))

    parts = [
        encoder.encode([one], length) if clean(one) or encoder.embeds_blank else nothing()
        for one in prompts
    ]
    text, mask = (jnp.concatenate(rows) for rows in zip(*parts, strict=True))
    if encoder.rounds:
        text = text.astype(jnp.bfloat16)
    return text.astype(jnp.float32), mask


def inputs_of(
    jobs: Sequence[Job],
    embed: Embed | None,
    conditions: Sequence[Condition] = (),
    match: Match | None = None,
    tell: Tell | None = None,
) -> tuple[dict[str, Array], Int[Array, " b"]]:
    """The columns of a call, of prompts, negative prompts and classes, and its seeds.

    The rows are split over the devices. embed(prompt) gives the columns of a prompt; None if the
    stages have no text. conditions: of the stages; if a job has no value for one, it gets the value
    that means nothing. match: of a prompt, for a CLIP that guides. tell: gives a decoder its
    vectors.

    Raises:
      ValueError: only some of the jobs have a negative prompt or a class, or their numbers of
        prompts differ.
    """
    split = mesh.batch_sharding(mesh.make_mesh(devices=sampling_devices()))

    def stacked(prompts: Sequence[str], prefix: str = "") -> dict[str, Array]:
        assert embed is not None
        rows = list(map(embed, prompts))
        return {f"{prefix}{x}": jnp.concatenate([row[x] for row in rows]) for x in rows[0]}

    columns = {name: x for one in conditions for name, x in one.nothing(len(jobs)).items()}
    negatives = _all_or_none([job.negative for job in jobs], "a negative prompt")
    labels = _all_or_none([job.label for job in jobs], "a class")
    if embed is not None:
        columns |= stacked([job.prompt for job in jobs])
        columns |= stacked(negatives, NEGATIVE) if negatives else {}
        for i in range(_same([len(job.also) for job in jobs])):
            columns |= stacked([job.also[i][0] for job in jobs], also(i))
            shares = [job.also[i][1] for job in jobs]
            columns[f"{also(i)}{SHARE}"] = jnp.array(shares, jnp.float32)
    if labels:
        columns["label"] = jnp.array(labels, jnp.int32)
    if match is not None:
        vectors = [match(job.prompt) for job in jobs]
        columns[CLIP_TEXT] = jnp.asarray(np.concatenate(vectors))
    seeds = jnp.array([job.seed for job in jobs], jnp.int32)
    columns, seeds = jax.device_put((columns, seeds), split)
    if tell is not None:
        columns[IMAGE_VECTOR] = jax.device_put(tell(jobs, seeds), split)
    return columns, seeds


def _same(counts: Sequence[int]) -> int:
    if len(set(counts)) != 1:
        raise ValueError(f"jobs of {sorted(set(counts))} further prompts: all want as many")
    return counts[0]


def _all_or_none(values: Sequence[Item | None], what: str) -> list[Item]:
    there = [value for value in values if value is not None]
    if len(there) not in (0, len(values)):
        raise ValueError(f"{len(there)} of {len(values)} jobs have {what}: all or none")
    return there


def to_bytes(pictures: Resized) -> UInt8[np.ndarray, "b _ _ 3"]:
    """Pictures in [-1, 1] as bytes in the host's memory."""
    return np.asarray(_to_uint8(pictures))
