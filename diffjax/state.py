"""What a checkpoint holds: arrays, and nothing that can go stale."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from diffjax.types import PRNGKey


class TrainState(struct.PyTreeNode):
    """Parameters, their moving average, the optimiser's state and the step that comes next."""

    step: Any
    params: Any
    ema_params: Any
    opt_state: Any


def create(init: Callable[[PRNGKey], Any], tx: optax.GradientTransformation, key: PRNGKey):
    """The state before the first step; to be jitted, with the shardings of its result."""
    params = init(key)
    # a real copy: two donated leaves must not share a buffer
    ema_params = jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True), params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema_params, tx.init(params))


def ema_decay_at(step: Int[Array, "..."], decay: float) -> Float[Array, "..."]:
    """min(decay, (1 + t) / (10 + t)): the average forgets its random start."""
    t = step.astype(jnp.float32)
    return jnp.minimum(decay, (1.0 + t) / (10.0 + t))


def apply_gradients(
    state: TrainState, gradients: Any, tx: optax.GradientTransformation, ema_decay: float
) -> TrainState:
    """One optimiser step and one step of the float32 moving average of the parameters."""
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # optax.ema would average the updates; this averages the parameters
    ema_params = optax.incremental_update(
        jax.tree.map(lambda p: p.astype(jnp.float32), params),
        state.ema_params,
        1.0 - ema_decay_at(state.step, ema_decay),
    )
    return TrainState(state.step + 1, params, ema_params, opt_state)
