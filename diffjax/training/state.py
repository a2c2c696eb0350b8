"""The train state, which is what a checkpoint holds: arrays and nothing else."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool

from diffjax.checkpoint.portable import LIVE
from diffjax.core.types import PRNGKey
from diffjax.tasks.task import Memory, Params
from diffjax.training.averages import Averages, step_towards


class TrainState(struct.PyTreeNode):
    """Parameters, their moving averages, the optimiser's state and the number of steps done.

    ema_params: for each average, by its name, a float32 tree like params. memory: the memory of a
    task that has one (`tasks.task.Remembering`), else None.
    """

    # Any, because tree.map puts shapes and shardings in place of the arrays
    step: Any
    params: Any
    ema_params: Any
    opt_state: Any
    memory: Any = None


def create(
    init: Callable[[PRNGKey], Params],
    tx: optax.GradientTransformation,
    averages: Iterable[str],
    key: PRNGKey,
    memory: Callable[[], Memory] = lambda: None,
) -> TrainState:
    """The state before the first step. To be jitted with the shardings of its result."""
    params = init(key)
    # copies, because two donated leaves must not share a buffer
    copy = lambda p: jnp.array(p, jnp.float32, copy=True)  # noqa: E731
    ema_params = {name: jax.tree.map(copy, params) for name in averages}
    opt_state = tx.init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema_params, opt_state, memory())


def apply_gradients(
    state: TrainState,
    gradients: Params,
    tx: optax.GradientTransformation,
    averages: Averages,
    good: Bool[Array, ""] | None = None,
    bounded: Callable[[Params], Params] = lambda params: params,
) -> TrainState:
    """Takes one step of the optimiser and of each float32 moving average.

    good: whether to use the gradients. If not, parameters and optimiser stay as they are, and the
    averages are updated with the same parameters again. bounded: moves the new parameters into
    their bounds, before anything else sees them.
    """
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = bounded(optax.apply_updates(state.params, updates))
    if good is not None:
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(good, new, old),
            (params, opt_state),
            (state.params, state.opt_state),
        )
    ema_params = {
        name: step_towards(state.ema_params[name], params, weight_at(state.step))
        for name, weight_at in averages.items()
    }
    return state.replace(
        step=state.step + 1, params=params, ema_params=ema_params, opt_state=opt_state
    )


def averaged(state: TrainState, name: str) -> Params:
    """The parameters of an average (or their shapes); "live" means the trained ones themselves.

    Raises:
      ValueError: the state has no such average; the message lists those that it has.
    """
    if name == LIVE:
        return state.params
    if name not in state.ema_params:
        has = ", ".join([*sorted(state.ema_params), LIVE])
        raise ValueError(f"no average is called {name}; there are {has}")
    return state.ema_params[name]
