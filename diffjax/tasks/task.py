"""What can be trained: a few pure functions over columns."""

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
# Arrays by the names of layers; or their shapes, where nothing is computed.
Params: TypeAlias = PyTree
# Arrays that a task keeps from step to step beside its parameters; None for most tasks.
Memory: TypeAlias = PyTree


@runtime_checkable
class Model(Protocol):
    """What a task asks of a network: flax's modules, and whatever else has these."""

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
        """({"params": parameters}, *inputs, **told) -> what the network says."""
        ...


class Losses(NamedTuple):
    """What a task says of each row. Training lowers the mean of `per_example`.

    metrics: logged as means over the rows that have one; NaN stands for none.
    """

    per_example: Float[Array, " b"]
    metrics: Mapping[str, Float[Array, " b"]]


@dataclass(frozen=True)
class Peers:
    """How a loss sees the rows that other devices hold.

    all: this device's rows [b ...] -> every device's, in order. mine: a number of rows b -> their
    places among all, int32 [b].
    """

    all: Callable[[Array], Array]
    mine: Callable[[int], Int[Array, " b"]]


# One device has all rows.
ALONE = Peers(all=lambda rows: rows, mine=jnp.arange)


@runtime_checkable
class Task(Protocol):
    """One trainable thing: pure functions of arrays. It knows no config, no mesh and no file.

    frozen: weights that it uses and never trains; {} for most. whole_batch: its loss compares
    examples with each other, so a batch cannot go through in parts. sharding: a rule for each of
    its parameters.
    """

    @property
    def name(self) -> str:
        """Names its keys, its folder and its lines in the log."""
        ...

    @property
    def frozen(self) -> Params:
        """Weights that are used and never trained."""
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
        """The columns of one example that training reads."""
        ...

    def init(self, key: PRNGKey) -> Params:
        """Fresh parameters; to be jitted."""
        ...

    def draw(self, key: PRNGKey, batch: Columns, step: Int[Array, ""]) -> Columns:
        """The batch with all its chance as further columns, whatever devices it then goes to."""
        ...

    def loss(self, params: Params, batch: Columns, peers: Peers = ALONE) -> Losses:
        """The loss of each row of a batch that `draw` made: deterministic."""
        ...

    def preview(self, params: Params, batch: Columns, keys: PRNGKeys) -> Columns:
        """Columns to look at, made of a batch without its chance."""
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

    So a task is an argument of a jitted function: large frozen weights are never constants of the
    program, and two equal tasks share one.
    """
    meta = [field.name for field in fields(task_class) if field.name != "frozen"]
    jax.tree_util.register_dataclass(task_class, data_fields=["frozen"], meta_fields=meta)
    return task_class


def with_model(task: AnyTask, **fields_: object) -> AnyTask:
    """The task with these fields of its network replaced; the same task where it has none."""
    model = getattr(task, "model", None)
    if not all(hasattr(model, name) for name in fields_):
        return task
    return dataclasses.replace(task, model=model.clone(**fields_))  # type: ignore[type-var,union-attr]


def examples(task: Task, count: int, place: jax.sharding.Sharding | None = None) -> ExampleShapes:
    """A batch of `count` examples as shapes, for compilers that need no numbers."""
    return {
        name: jax.ShapeDtypeStruct((count, *one.shape), one.dtype, sharding=place)
        for name, one in task.columns().items()
    }
