"""Draws the pictures of a set: trained stages make one for each example of a data set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array
from ml_collections import ConfigDict

from diffjax.build.inputs import clip_columns, columns, reading, vectors
from diffjax.build.inputs.embeddings import embeddings_of
from diffjax.build.reports.loaded import Asked, Loaded, shown_vectors
from diffjax.build.reports.sets.opening import blocks_of, pictures_of
from diffjax.core.errors import require
from diffjax.data import readers
from diffjax.data.record import RecordSource, captions_at
from diffjax.devices import mesh as mesh_lib
from diffjax.encoders.text import TextEncoder
from diffjax.evaluation import collect
from diffjax.evaluation.collect import Pictures
from diffjax.evaluation.evaluator import rows_for
from diffjax.evaluation.examples import Examples, Spread
from diffjax.generation.chain import TrainedStage, generate
from diffjax.generation.jobs import Job
from diffjax.generation.telling import Tell
from diffjax.tasks.conditions import LowRes, shrink
from diffjax.tasks.vectors import IMAGE_VECTOR

# Picture i of the set of seed s has the seed s * STRIDE + i, so sets share no noise.
STRIDE, SEEDS = 1_000_003, 2**31
SAID_EVERY = 10  # calls between two lines that say how far it is


@dataclass(frozen=True)
class Prompts:
    """The examples that stages make pictures for.

    records: some of the split, each with its first caption alone. whole: the split. needed: the
    readers of what the stages are told, and last that of the true picture at the last stage's size.
    """

    records: RecordSource
    whole: RecordSource
    split: str
    needed: tuple[readers.Reader, ...]
    max_bad_fraction: float

    def blocks(self) -> Iterator[Examples]:
        """The examples, a block at a time."""
        return blocks_of(self.records, self.needed, self.max_bad_fraction)

    def true(self, whole: bool = False) -> Iterator[Pictures]:
        """The true pictures of the examples, or of the whole split, a block at a time."""
        records = self.whole if whole else self.records
        return pictures_of(records, self.needed[-1:], self.max_bad_fraction)

    def captions(self) -> tuple[str, ...]:
        """The caption of each example, "" for none; their pictures are not read."""
        every = range(len(self.records))
        return tuple(next(iter(captions_at(self.records, i)), "") for i in every)


def prompts_of(loaded: Sequence[Loaded], asked: Asked) -> Prompts:
    """The examples of the data of the last stage: --num of --split, or those of its config.

    A decoder without a prior is told the vectors of their true pictures.

    Raises:
      ConfigError: there is no such split, or it has fewer records than were asked for.
    """
    last = loaded[-1].options if loaded[-1].teller is None else untold(loaded[-1].options)
    split = asked.split or last.data.validation_split
    source = reading.held_out(last, split)
    if len(loaded) > 1 and shown_vectors(loaded):
        source = clip_columns.with_image_vectors(loaded[0].options, source)
    allowed = f"the split {split} of {last.data.name} has {len(source)}: lower it"
    require(asked.num is None or asked.num <= len(source), "--num", asked.num, allowed)
    records = Spread(source, asked.num or last.train.evaluate_examples)
    bad = reading.max_bad_fraction_of(last)
    return Prompts(records, source, split, readers_of(loaded, records), bad)


def readers_of(loaded: Sequence[Loaded], records: RecordSource) -> tuple[readers.Reader, ...]:
    """What all stages are told, each thing once, and the picture of the last stage."""
    found: list[readers.Reader] = []
    told_text = False
    for one in loaded:
        embed = None
        if isinstance(one.encoder, TextEncoder) and not told_text:
            embed, told_text = embeddings_of(one.options, records, one.encoder).embed, True
        options = one.options if one.teller is None else untold(one.options)
        read = columns.readers_of if one is loaded[-1] else columns.told_of
        found += read(options, embed)
    return tuple(found)


def untold(options: ConfigDict) -> ConfigDict:
    """A decoder's config without the vectors of true pictures: a prior makes others."""
    made = options.copy_and_resolve_references()
    with made.unlocked():
        for section in (vectors.SECTION, "embedding"):
            if section in made:
                del made[section]
    return made


def draw(
    stages: Sequence[TrainedStage],
    prompts: Prompts,
    seed: int,
    mesh: Mesh,
    tell: Tell | None = None,
) -> Iterator[Pictures]:
    """The last stage's picture for each example, in bytes, a block at a time.

    The first stage starts from noise, or from the true picture made small. Pictures depend on their
    example, its place and the seed, and not on the others. tell: what tells a decoder the vectors
    of its pictures.

    Raises:
      InputError: a number of a picture is not finite.
    """
    count, done = len(prompts.records), 0
    rows = rows_for(count, count, mesh)
    for block in prompts.blocks():
        made = []
        for first in range(0, len(block), rows):
            part = np.minimum(np.arange(first, first + rows), len(block) - 1)
            seeds = (seed * STRIDE + done + part) % SEEDS
            batch = {name: jnp.asarray(column[part]) for name, column in block.columns.items()}
            split = mesh_lib.batch_sharding(mesh)
            placed = jax.device_put(jnp.asarray(seeds, jnp.int32), split)
            if tell is not None:
                jobs = [Job(block.captions[i], 0) for i in part]
                batch[IMAGE_VECTOR] = tell(jobs, placed)
            told = jax.device_put(told_to(stages, batch), split)
            *_, pictures = generate(stages, told, seeds=placed)
            name = f"made, pictures {done + first} to {done + part[-1]} of seed {seed}"
            made.append(collect.to_bytes(name, pictures)[: len(block) - first])
            if (first // rows) % SAID_EVERY == 0:
                print(f"seed {seed}: {done + int(part[-1]) + 1} of {count} drawn", flush=True)
        done += len(block)
        yield np.concatenate(made)


def told_to(stages: Sequence[TrainedStage], batch: dict[str, Array]) -> dict[str, Array]:
    """The columns that sampling reads, of examples with the true picture of the last stage."""
    first, last = stages[0].task, stages[-1].task
    true = batch["image"]
    if first.size_px < last.size_px:
        small = shrink(true.astype(jnp.float32), last.size_px // first.size_px)
        true = jnp.round(jnp.clip(small, 0, 255)).astype(jnp.uint8)
    told = dict(first.prompted({**batch, "image": true}))
    for stage in stages[1:]:
        for one in stage.task.conditions:
            if not isinstance(one, LowRes):
                told |= one.shown(batch)
    return told
