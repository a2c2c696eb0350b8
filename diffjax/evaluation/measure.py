"""The two kinds of evaluation: measures of a task, and scores of what it makes.

A `Measure` runs on the devices and returns numbers for each example. A `Score` runs on this machine
and compares the preview that the task made of the examples with the truth. Evaluating them is only
averaging their rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffjax.core import rng
from diffjax.core.types import PRNGKey, PRNGKeys
from diffjax.evaluation.examples import Examples
from diffjax.tasks.task import Columns, Params, Task

# Numbers by name, one per example; NaN if an example has none.
Numbers: TypeAlias = Mapping[str, Float[Array, " b"]]
# The same on the host. A number without an axis is for the whole set, such as an FID.
Scores: TypeAlias = Mapping[str, Float[np.ndarray, "..."]]
# A task, or the tasks of a cascade.
Subject = TypeVar("Subject", contravariant=True)


@runtime_checkable
class Measure(Protocol[Subject]):
    """Numbers of each example, by a pure function of arrays; equal measures share a program.

    batch: the columns of held-out examples, as training reads them. keys: one per example, equal in
    all evaluations, so that curves over training have no noise of their own. Row i of a number
    depends only on row i and key i, unless the task compares examples with each other.
    """

    def __call__(self, task: Subject, params: Params, batch: Columns, keys: PRNGKeys) -> Numbers:
        """The numbers by name."""
        ...


@runtime_checkable
class Score(Protocol):
    """Compares what a task made with the truth: fidelity, retrieval, later FID or CLIP's score.

    made: the columns of the task's preview, with a row for each of the examples.
    """

    def __call__(self, made: Mapping[str, np.ndarray], examples: Examples) -> Scores:
        """The numbers by name."""
        ...


@dataclass(frozen=True)
class TrainingLoss:
    """The loss of training and its metrics, on examples that training does not see.

    The random draws of each row are made separately, as at step 0 of the task.
    """

    def __call__(self, task: Task, params: Params, batch: Columns, keys: PRNGKeys) -> Numbers:
        """`loss`, and the metrics of the task."""

        def drawn(key: PRNGKey, row: Columns) -> Columns:
            one = {name: column[None] for name, column in row.items()}
            whole = task.draw(key, one, jnp.int32(0))
            return {name: column[0] for name, column in whole.items()}

        losses = task.loss(params, jax.vmap(drawn)(rng.stream(keys, "loss"), batch))
        return {"loss": losses.per_example, **losses.metrics}
