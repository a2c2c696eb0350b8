"""The part of a report with the bits per dimension of stages as chains of T steps, as a table."""

from collections.abc import Sequence

import jax

from diffjax.build import evaluation
from diffjax.build.reports.loaded import Asked, Loaded
from diffjax.core.json_types import Json, JsonObject
from diffjax.core.tables import align_columns
from diffjax.evaluation.chain_bound import PARTS, TOTAL, ChainBound
from diffjax.evaluation.evaluator import Evaluator, rows_for

# The variances of a network that learns none, by their gamma (Ho et al. 2020, sec. 3.2).
FIXED = {"small": 0.0, "large": 1.0}
LEARNED = "learned"
HEAD = ("stage", "step", "average", "objective", "schedule", "T", "variance", *PARTS, "bits/dim")


def fault(loaded: Sequence[Loaded]) -> str:
    """Why these stages have no such bound; "" if they have."""
    for one in loaded:
        task = one.stage.task
        if task.space:
            return f"{task.name} learns latents, whose bound says nothing of pictures"
        if task.learning.learned_schedule:
            return f"{task.name} learns its schedule, and is no chain of fixed steps"
    return ""


def bounds(loaded: Sequence[Loaded], asked: Asked, mesh: jax.sharding.Mesh) -> Json:
    """The bound of each stage, twice for those that learn no variance; prints a table of them."""
    rows = [row for one in loaded for row in _of_stage(one, asked, mesh)]
    print("\n".join(align_columns([HEAD, *map(_cells, rows)], range(len(HEAD) - 4, len(HEAD)))))
    return list(rows)


def _of_stage(one: Loaded, asked: Asked, mesh: jax.sharding.Mesh) -> list[JsonObject]:
    options, task = one.options, one.stage.task
    split = asked.split or options.data.validation_split
    count = asked.num or options.train.evaluate_examples
    seed = options.seed if asked.seed is None else asked.seed
    found = evaluation.examples_of(options, one.encoder, split, count)
    size = rows_for(len(found), options.data.batch_size, mesh)
    variances = {LEARNED: 0.0} if task.learning.learns_variance else FIXED
    rows = []
    for name, gamma in variances.items():
        ask = Evaluator(task, found, (ChainBound(gamma),), (), mesh, size, seed)
        numbers = ask(one.stage.params)
        by_time = {
            part: [numbers[f"{part}_{i}"] for i in range(len(numbers)) if f"{part}_{i}" in numbers]
            for part in ("term", "mse")
        }
        row: JsonObject = {
            "name": task.name,
            "step": one.origin.step,
            "average": one.origin.average,
            "objective": task.learning.objective,
            "schedule": options.diffusion.schedule,
            "steps": task.learning.num_levels,
            "variance": name,
            "data": options.data.name,
            "split": split,
            "examples": len(found),
            "seed": seed,
            TOTAL: numbers.get(TOTAL, float("nan")),
            **{part: numbers.get(part, float("nan")) for part in PARTS},
            "terms": list(by_time["term"]),
            "mse": list(by_time["mse"]),
        }
        rows.append(row)
    return rows


def _cells(row: JsonObject) -> list[str]:
    said = [
        str(row[name]) for name in ("name", "step", "average", "objective", "schedule", "steps")
    ]
    return [*said, str(row["variance"]), *(f"{row[name]:.4f}" for name in (*PARTS, TOTAL))]
