"""Tasks: what can be trained, as a few pure functions of columns."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from diffjax.core.types import PRNGKey, PRNGKeys
from diffjax.devices.mesh import Rules

# Named arrays, a row per example.
Columns: TypeAlias = Mapping[str, Array]
# The shape and dtype of each column of one example, without the axis of rows.
ExampleShapes: TypeAlias = Mapping[str, jax.ShapeDtypeStruct]
# Arrays by the names of layers, or their shapes if nothing is to be computed.
Params: TypeAlias = PyTree
# Arrays that a task keeps from step to step beside its parameters; None for most tasks.
Memory: TypeAlias = PyTree


@runtime_checkable
class Model(Protocol):
    """What a task needs of a network: a flax module, or any object with these attributes."""

    @property
    def sharding(self) -> Rules:
        """A rule for each parameter."""
        ...

    @property
    def init(self) -> Callable[..., Mapping[str, Params]]:
        """(key, *inputs, **told) -> {"params": parameters}."""
        ...

    @property
    def apply(self) -> Callable[..., Array]:
        """({"params": parameters}, *inputs, **told) -> the output of the network."""
        ...


class Losses(NamedTuple):
    """The loss of each row, whose mean training lowers, and other metrics of each row.

    metrics: logged as means over the rows that have them; NaN means that a row has none. seen:
    further columns, for the memory of the task alone.
    """

    per_example: Float[Array, " b"]
    metrics: Mapping[str, Float[Array, " b"]]
    seen: Mapping[str, Array] = {}


@dataclass(frozen=True)
class Peers:
    """Gives a loss access to the rows of other devices.

    all: the rows [b ...] of this device -> the rows of all devices, in order. mine: the number b of
    this device's rows -> their places among all rows, int32 [b].
    """

    all: Callable[[Array], Array]
    mine: Callable[[int], Int[Array, " b"]]


# The peers of a single device, which has all rows.
ALONE = Peers(all=lambda rows: rows, mine=jnp.arange)


@runtime_checkable
class Task(Protocol):
    """What can be trained: pure functions of arrays, without config, mesh or files.

    frozen: weights that are used but not trained; {} for most tasks. whole_batch: the loss compares
    examples with each other, so a batch cannot be split into micro-batches. sharding: rules for
    its parameters.
    """

    @property
    def name(self) -> str:
        """The name of its random keys, its folder and its lines in the log."""
        ...

    @property
    def frozen(self) -> Params:
        """Weights that are used but not trained."""
        ...

    @property
    def whole_batch(self) -> bool:
        """Whether the loss compares examples with each other."""
        ...

    @property
    def sharding(self) -> Rules:
        """How each parameter is split over a mesh."""
        ...

    def columns(self) -> ExampleShapes:
        """The shapes of the columns of one example that training reads."""
        ...

    def init(self, key: PRNGKey) -> Params:
        """Initial parameters. To be jitted."""
        ...

    def draw(self, key: PRNGKey, batch: Columns, step: Int[Array, ""]) -> Columns:
        """The batch with all its random draws as further columns; independent of the mesh."""
        ...

    def loss(self, params: Params, batch: Columns, peers: Peers = ALONE) -> Losses:
        """The loss of each row of a batch that `draw` made. It is deterministic."""
        ...

    def preview(self, params: Params, batch: Columns, keys: PRNGKeys) -> Columns:
        """Columns to look at, made from a batch without random draws."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """What a task has beside `Task` if its draws depend on the losses of earlier steps.

    Its memory is part of the train state, and so of checkpoints. It is made of whole batches, so
    neither the mesh nor micro-batches change it.
    """

    def first_memory(self) -> Memory:
        """The memory before the first step; None for a task that remembers nothing."""
        ...

    def draw(
        self, key: PRNGKey, batch: Columns, step: Int[Array, ""], memory: Memory = None
    ) -> Columns:
        """`Task.draw` under a memory; without one as before the first step."""
        ...

    def remember(self, memory: Memory, batch: Columns, losses: Losses) -> Memory:
        """The memory after a step with a batch that `draw` made, and its losses."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """What a task has beside `Task` if some of its parameters must stay within bounds."""

    def bounded(self, params: Params, memory: Memory = None) -> Params:
        """The parameters moved into their bounds, after each step of the optimiser.

        memory: that after the step, of a task that has one.
        """
        ...


@runtime_checkable
class Guessable(Protocol):
    """What a task has beside `Task` if the loss is known of answers that are guessed."""

    def loss_by_chance(self, batch_size: int) -> float:
        """The lowest loss of a network that tells nothing of its inputs."""
        ...


@runtime_checkable
class Several(Protocol):
    """What a task has beside `Task` if its parameters are those of several networks."""

    @property
    def networks(self) -> tuple[str, ...]:
        """Their names, under which the parameters of each lie."""
        ...


def networks_of(task: Task) -> tuple[str, ...]:
    """The names of its networks; () for a task that has one."""
    return task.networks if isinstance(task, Several) else ()


def bounded(task: Task, params: Params, memory: Memory = None) -> Params:
    """The parameters in their bounds; unchanged for a task that has none."""
    return task.bounded(params, memory) if isinstance(task, Bounded) else params


def first_memory(task: Task) -> Memory:
    """The memory of a task before the first step; None for a task that has none."""
    return task.first_memory() if isinstance(task, Remembering) else None


def drawn(
    task: Task, key: PRNGKey, batch: Columns, step: Int[Array, ""], memory: Memory
) -> Columns:
    """The batch with its chance, under the task's memory if it has one."""
    if memory is None or not isinstance(task, Remembering):
        return task.draw(key, batch, step)
    return task.draw(key, batch, step, memory)


def remembered(task: Task, memory: Memory, batch: Columns, losses: Losses) -> Memory:
    """The memory after a step; None for a task that has none."""
    if memory is None or not isinstance(task, Remembering):
        return memory
    return task.remember(memory, batch, losses)


Class = TypeVar("Class", bound=type)
AnyTask = TypeVar("AnyTask", bound=Task)


def register(task_class: Class) -> Class:
    """Makes a frozen dataclass a pytree whose only leaves are its `frozen` weights.

    A task can then be an argument of a jitted function. So large frozen weights are not constants
    of the program, and equal tasks share a program.
    """
    meta = [field.name for field in fields(task_class) if field.name != "frozen"]
    jax.tree_util.register_dataclass(task_class, data_fields=["frozen"], meta_fields=meta)
    return task_class


def with_model(task: AnyTask, **fields_: object) -> AnyTask:
    """The task with these fields of its network replaced; unchanged if it has no such fields."""
    model = getattr(task, "model", None)
    if not all(hasattr(model, name) for name in fields_):
        return task
    return dataclasses.replace(task, model=model.clone(**fields_))  # type: ignore[type-var,union-attr]


def examples(task: Task, count: int, place: jax.sharding.Sharding | None = None) -> ExampleShapes:
    """The shapes of a batch of `count` examples, for compiling without data."""
    return {
        name: jax.ShapeDtypeStruct((count, *one.shape), one.dtype, sharding=place)
        for name, one in task.columns().items()
    }
