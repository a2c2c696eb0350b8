"""Gradients of a task's mean loss, also over micro-batches and with parameters in shards."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffjax.models.layers.level import is_block
from diffjax.tasks.task import ALONE, Columns, Losses, Params, Peers, Task, with_model

# Parameters as they are stored, in shards -> as the network uses them, whole.
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
    """What these rows add to the gradient of a mean over `total` rows, and the losses of the rows.

    batch: made by `task.draw`. parts: the number of micro-batches; the rows go through the network
    in so many equal parts, one after the other, and their gradients are summed. gather: makes whole
    parameters of shards; None if the parameters are whole. all_rows, my_rows: for the `Peers` of
    the loss.
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
    """The task and its parameters, ready for use.

    Each block of a network gathers its own parameters when it runs. So a device never holds more
    than the whole parameters of one block at a time, or their gradients.
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
