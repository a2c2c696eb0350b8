"""Gradients of a task's mean loss over rows, in parts and with parameters that lie in shards."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffjax.models.layers.level import is_block
from diffjax.tasks.task import ALONE, Columns, Losses, Params, Peers, Task, with_model

# Parameters as they are kept -> as the network uses them.
Gather: TypeAlias = Callable[[Params], Params]


def gradients_of(
    task: Task,
    params: Params,
    batch: Columns,
    *,
    total: int,
    parts: int = 1,
    gather: Gather | None = None,
    all_rows: Callable[[Array], Array] = ALONE.all,
    my_rows: Callable[[int], Int[Array, " b"]] = ALONE.mine,
) -> tuple[Params, Losses]:
    """These rows' share of the gradient of a mean over `total` rows, and the rows' losses.

    batch: made by `task.draw`. parts: the rows go through the network in so many equal parts, one
    after the other; a gradient is kept for their sum. gather: None where parameters are kept as
    they are used. all_rows, my_rows: what `Peers` of the loss are made of.
    """
    peers = Peers(all_rows, my_rows)

    def share(params: Params, rows: Columns):
        used_task, used = gathered(task, params, gather)
        losses = used_task.loss(used, rows, peers)
        return jnp.sum(losses.per_example) / total, losses

    gradient = jax.grad(share, has_aux=True)
    if parts == 1:
        return gradient(params, batch)

    def body(so_far: Params, part: Columns):
        gradients, losses = gradient(params, part)
        return jax.tree.map(jnp.add, so_far, gradients), losses

    in_parts = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    gradients, losses = jax.lax.scan(body, jax.tree.map(jnp.zeros_like, params), in_parts)
    return gradients, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), losses)


def gathered(task: Task, params: Params, gather: Gather | None) -> tuple[Task, Params]:
    """The task and its parameters for use; a block of a network gathers its own where it runs.

    So no device holds more than a block's whole parameters at a time, nor their gradients.
    """
    if gather is None:
        return task, params
    if not hasattr(getattr(task, "model", None), "unpack"):
        return task, gather(params)
    outside = {
        name: child if is_block(child) else gather({name: child})[name]
        for name, child in params.items()
    }
    return with_model(task, unpack=gather), outside
