"""The jitted functions that train a task, and how their arrays are split over the mesh."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from diffjax.core.errors import require
from diffjax.core.types import PRNGKey
from diffjax.devices import mesh as mesh_lib
from diffjax.devices.spread import spread
from diffjax.logs import readings
from diffjax.tasks.task import Params, Task, first_memory
from diffjax.training import averages, step
from diffjax.training.optim import Optimiser, Rate
from diffjax.training.state import TrainState, create


@dataclass(frozen=True)
class Training:
    """Everything from which a training step is compiled. Equal trainings share a program.

    averages: their names, see `averages.parse`. parts: the number of micro-batches of a batch.
    log_every: the metrics of this number of steps are kept on the device for a line of the log.
    """

    task: Task
    tx: Optimiser
    rate: Rate
    averages: tuple[str, ...]
    mesh: Mesh
    seed: int
    batch_size: int
    parts: int
    log_every: int


@dataclass(frozen=True)
class Placement:
    """The mesh, and the shapes and shardings of the train state.

    init: key -> the first state, whose arrays are made in their shards.
    """

    mesh: Mesh
    state_shape: TrainState
    state_sharding: TrainState
    init: Callable[[jax.Array], TrainState]


@dataclass(frozen=True)
class Program:
    """The jitted functions of a training.

    step: (state, batch, task) -> (state, metrics); it overwrites the old state. no_readings:
    metrics -> empty readings. record: (readings, metrics) -> readings with these metrics.
    all_finite: state -> whether all its numbers are finite.
    """

    place: Placement
    batch_sharding: NamedSharding
    step: jax.stages.Wrapped
    no_readings: jax.stages.Wrapped
    record: jax.stages.Wrapped
    all_finite: jax.stages.Wrapped


@functools.lru_cache(maxsize=8)
def program_of(training: Training) -> Program:
    """The program of a training; cached, so that the same process traces it only once.

    Raises:
      ConfigError: the batch is split into parts, but the task compares its examples.
      ValueError: see `placement_of`.
    """
    require(
        training.parts == 1 or not training.task.whole_batch,
        "train.accumulate",
        training.parts,
        f"must be 1: {training.task.name} compares the examples of a batch with each other",
    )
    place = placement_of(training)
    batch_sharding = mesh_lib.batch_sharding(place.mesh)
    everywhere = mesh_lib.replicated(place.mesh)
    return Program(
        place,
        batch_sharding,
        step=jax.jit(
            step_of(training, place.state_sharding.params),
            in_shardings=(place.state_sharding, batch_sharding, everywhere),
            out_shardings=(place.state_sharding, everywhere),
            donate_argnums=0,
        ),
        no_readings=jax.jit(
            functools.partial(readings.no_readings, training.log_every), out_shardings=everywhere
        ),
        record=jax.jit(readings.record, donate_argnums=0),
        all_finite=jax.jit(step.all_finite, out_shardings=everywhere),
    )


def placement_of(training: Training) -> Placement:
    """How the train state is split over the mesh.

    Raises:
      ValueError: no sharding rule matches a parameter, or the mesh does not divide it evenly.
    """
    task = training.task

    # the task is an argument, so that frozen weights to begin from are not constants
    def new(task: Task, key: PRNGKey) -> TrainState:
        memory = functools.partial(first_memory, task)
        return create(task.init, training.tx, training.averages, key, memory)

    shape = jax.eval_shape(new, task, jax.random.key(0))
    sharding = mesh_lib.state_sharding(training.mesh, shape.replace(memory=None), task.sharding)
    everywhere = mesh_lib.replicated(training.mesh)
    sharding = sharding.replace(memory=jax.tree.map(lambda _: everywhere, shape.memory))
    shape = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shape, sharding
    )
    init = functools.partial(jax.jit(new, out_shardings=sharding), task)
    return Placement(training.mesh, shape, sharding, init)


def started(state: TrainState, place: Placement, params: Params) -> TrainState:
    """The first state with other parameters, which all averages begin with too."""

    def put(x: np.ndarray, like: jax.ShapeDtypeStruct) -> jax.Array:
        own = np.asarray(x, like.dtype)
        return jax.make_array_from_callback(like.shape, like.sharding, lambda index: own[index])

    shapes = place.state_shape
    averages = {name: jax.tree.map(put, params, shape) for name, shape in shapes.ema_params.items()}
    return state.replace(params=jax.tree.map(put, params, shapes.params), ema_params=averages)


def step_of(training: Training, params_sharding: PyTree[NamedSharding]) -> Callable:
    """The pure function (state, batch, task) -> (state, metrics), spread over the mesh."""
    task_sharding = training.task.sharding

    def one_step(state, batch, task):
        return step.train_step(
            state,
            batch,
            task=task,
            tx=training.tx,
            root_key=jax.random.key(training.seed),
            averages=averages.parse(training.averages),
            parts=training.parts,
            spread=spread(training.mesh, params_sharding, task_sharding),
            rate=training.rate,
        )

    return one_step
