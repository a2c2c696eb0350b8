"""The training step: a pure function (state, batch) -> (state, metrics), for any task."""

import functools
from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from diffjax.core import rng
from diffjax.core.types import PRNGKey, Scalar
from diffjax.tasks.task import Columns, Losses, Params, Task, bounded, drawn, remembered
from diffjax.training.averages import Averages
from diffjax.training.gradients import gradients_of
from diffjax.training.state import TrainState, apply_gradients

Metrics: TypeAlias = dict[str, Scalar]
# work(params, batch, gather=, all_rows=, my_rows=) -> (sums like the parameters, columns).
Work: TypeAlias = Callable[..., tuple[Params, Losses]]
Spread: TypeAlias = Callable[[Work], Callable[[Params, Columns], tuple[Params, Losses]]]


def alone(work: Work) -> Callable[[Params, Columns], tuple[Params, Losses]]:
    """The spread of a single device, which has all rows and all parameters."""
    return work


def train_step(
    state: TrainState,
    batch: Columns,
    *,
    task: Task,
    tx: optax.GradientTransformation,
    root_key: PRNGKey,
    averages: Averages,
    parts: int = 1,
    spread: Spread = alone,
    rate: optax.Schedule | None = None,
) -> tuple[TrainState, Metrics]:
    """One step of gradient descent. All random draws are functions of (root_key, state.step).

    If the loss or a gradient is not finite, the step is skipped: it counts, but changes neither a
    parameter nor the memory of the task. parts: the number of micro-batches, which are computed one
    after the other and do not change the result. spread: distributes the work over devices. rate:
    the learning rate by step, only for the metrics.
    """
    key = rng.stream(root_key, "train", state.step)
    batch = drawn(task, key, batch, state.step, state.memory)
    total = len(next(iter(batch.values())))
    work = functools.partial(gradients_of, task, total=total, parts=parts)
    gradients, losses = spread(work)(state.params, batch)
    metrics = {"loss": jnp.mean(losses.per_example), **means(losses.metrics)}
    metrics |= health_of(gradients, metrics["loss"])
    if rate is not None:
        metrics["learning_rate"] = jnp.asarray(rate(state.step), jnp.float32)
    good = metrics["skipped"] == 0
    memory = jax.tree.map(
        lambda new, old: jnp.where(good, new, old),
        remembered(task, state.memory, batch, losses),
        state.memory,
    )
    into_bounds = functools.partial(bounded, task, memory=memory)
    after = apply_gradients(state, gradients, tx, averages, good, into_bounds)
    return after.replace(memory=memory), metrics


def means(metrics: Mapping[str, Float[Array, " b"]]) -> Metrics:
    """The mean of each metric over the rows that have it (are not NaN); NaN if no row has it."""
    return {name: jnp.mean(rows, where=~jnp.isnan(rows)) for name, rows in metrics.items()}


def health_of(gradients: Params, loss: Scalar) -> Metrics:
    """`grad_norm`; `nonfinite`, the share of leaves with a bad gradient; `skipped`, 0 or 1."""
    norm = optax.tree.norm(gradients)
    finite = jnp.stack([jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(gradients)])
    # the squares of the norm overflow before Adam's do, so a finite norm is enough for all leaves
    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    return {
        "grad_norm": norm,
        "nonfinite": jnp.mean(~finite),
        "skipped": 1.0 - good.astype(jnp.float32),
    }


def all_finite(state: PyTree[Array]) -> Bool[Array, ""]:
    """Whether every number of a state is finite; checked before a state is saved."""
    return jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state)]).all()
