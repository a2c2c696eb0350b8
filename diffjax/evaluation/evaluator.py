"""Runs measures and scores over examples, spread over a mesh, and averages the numbers."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from diffjax.core import rng
from diffjax.devices import mesh as mesh_lib
from diffjax.evaluation.examples import Examples
from diffjax.evaluation.measure import Measure, Score
from diffjax.tasks.task import Params

Subject = TypeVar("Subject")
# The column with the number of each row's example.
INDEX = "example_index"
ROWS = 8


@dataclass(frozen=True)
class Evaluator(Generic[Subject]):
    """The evaluation of a task: call it with parameters.

    rows: how many examples go through the devices at a time, see `rows_for`. With several processes
    all have the same examples, and all call it. The compiled program is kept, so the second call
    compiles nothing.
    """

    task: Subject
    examples: Examples
    measures: tuple[Measure[Subject], ...]
    scores: tuple[Score, ...]
    mesh: Mesh
    rows: int
    seed: int

    def __call__(self, params: Params) -> dict[str, float]:
        """The mean of each number over the examples that have it; left out if no example has it."""
        return means(self.answers(params))

    def answers(self, params: Params) -> dict[str, np.ndarray]:
        """Each number by name: a row per example, NaN for none, or one number of the whole set."""
        sharding = mesh_lib.batch_sharding(self.mesh)
        everywhere = mesh_lib.replicated(self.mesh)
        ask = program(self.measures, bool(self.scores), everywhere)
        here = mesh_lib.rows_here(sharding, self.rows)
        task, seed = mesh_lib.everywhere((self.task, np.int32(self.seed)), self.mesh)
        parts: list[tuple[dict, dict]] = []
        for first in range(0, len(self.examples), self.rows):
            # every call has as many rows: the last one repeats the last example
            index = np.minimum(np.arange(first, first + self.rows), len(self.examples) - 1)
            mine = index[here]
            batch = {name: column[mine] for name, column in self.examples.columns.items()}
            placed = mesh_lib.to_devices({**batch, INDEX: mine.astype(np.int32)}, sharding)
            answer = ask(task, params, placed, seed)
            count = min(self.rows, len(self.examples) - first)
            parts.append(jax.tree.map(lambda x, n=count: np.asarray(x)[:n], answer))
        numbers, made = jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
        for score in self.scores:
            numbers |= score(made, self.examples)
        return numbers


def rows_for(count: int, batch_size: int, mesh: Mesh, whole_batch: bool = False) -> int:
    """The number of rows per call: equally many on every device, and at most ROWS.

    With few rows, whole pictures fit into memory even if training uses crops. whole_batch: the
    batch size of training, for a task that compares the examples of a batch.
    """
    shares = mesh.size // mesh_lib.batch_sharding(mesh).shard_shape((mesh.size,))[0]
    most = batch_size if whole_batch else min(batch_size, ROWS * shares)
    return -(-min(count, most) // shares) * shares


def means(answers: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean of each number over the rows that have it, in float64."""
    there = {name: rows[~np.isnan(rows)] for name, rows in answers.items()}
    return {
        name: float(np.mean(rows, dtype=np.float64)) for name, rows in there.items() if rows.size
    }


@functools.lru_cache(maxsize=16)
def program(
    measures: tuple[Measure, ...], with_preview: bool, everywhere: NamedSharding
) -> jax.stages.Wrapped:
    """(task, params, batch, seed) -> (numbers, preview), jitted; equal tasks share a program.

    The key of example i depends on (seed, "evaluate", i) only, and not on the mesh or `rows`.
    """

    def ask(task, params, batch, seed):
        batch = dict(batch)
        root = rng.stream(jax.random.key(seed), "evaluate")
        keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(batch.pop(INDEX))
        numbers: dict[str, jax.Array] = {}
        for measure in measures:
            numbers |= measure(task, params, batch, keys)
        made = task.preview(params, batch, rng.stream(keys, "preview")) if with_preview else {}
        return numbers, dict(made)

    return jax.jit(ask, out_shardings=everywhere)
