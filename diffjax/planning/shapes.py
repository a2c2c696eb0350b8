"""The programs of training and sampling with shapes in place of arrays, ready to be compiled."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from diffjax.devices import mesh as mesh_lib
from diffjax.tasks import sampling
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.task import ALONE, Task, examples, with_model
from diffjax.training.program import Training, program_of

Shapes: TypeAlias = PyTree[jax.ShapeDtypeStruct]


@dataclass(frozen=True)
class Work:
    """A jitted program, the shapes of its arguments, and the mathematics that it does.

    batch: examples of one call. keywords: keyword arguments of the call. one_device: the jaxpr of
    what a device computes at a time, on `rows` examples, before rematerialisation and sharding.
    """

    jitted: jax.stages.Wrapped
    arguments: tuple[Shapes, ...]
    batch: int
    mesh: Mesh
    params: Shapes
    one_device: jax.extend.core.ClosedJaxpr
    rows: int
    keywords: dict[str, Task] = dataclasses.field(default_factory=dict)

    def trace(self) -> jax.stages.Traced:
        """Traces the program with these shapes."""
        return self.jitted.trace(*self.arguments, **self.keywords)


def training(training: Training) -> Work:
    """The training step with the same function, shardings and donation as in a real run."""
    program, task, batch = program_of(training), training.task, training.batch_size
    mesh = program.place.mesh
    rows = batch // (mesh.size // mesh.shape["tensor"] * training.parts)
    plain = without_remat(task)

    def loss(params, columns, plain):
        drawn = plain.draw(jax.random.key(0), columns, jnp.zeros((), jnp.int32))
        return jnp.mean(plain.loss(params, drawn, ALONE).per_example)

    state, columns = program.place.state_shape, dict(examples(task, rows))
    gradient = jax.make_jaxpr(jax.grad(loss))(unplaced(state.params), columns, plain)
    columns = dict(examples(task, batch, program.batch_sharding))
    return Work(program.step, (state, columns, task), batch, mesh, state.params, gradient, rows)


def of_sampling(task: Denoising, settings: SampleSettings, devices: Sequence[jax.Device]) -> Work:
    """The sampler with these settings; each device makes one picture with all parameters.

    `diffjax.sample` does the same. Parameters are not split, because a step on one device has few
    rows, and gathering the parameters for each step would take longer than the step.
    """
    mesh, batch = mesh_lib.make_mesh(devices=devices), len(devices)
    whole = functools.partial(jax.ShapeDtypeStruct, sharding=mesh_lib.replicated(mesh))
    params = jax.eval_shape(task.init, jax.random.key(0))
    sampler = sampling.compiled(sampling.sample, settings)
    one_row = sampler.trace(params, *prompts(task, 1), task=task).jaxpr
    params, frozen = jax.tree.map(lambda x: whole(x.shape, x.dtype), (params, task.frozen))
    task = dataclasses.replace(task, frozen=frozen)
    arguments = (params, *prompts(task, batch, mesh_lib.batch_sharding(mesh)))
    return Work(sampler, arguments, batch, mesh, params, one_row, 1, {"task": task})


def prompts(
    task: Denoising, count: int, place: jax.sharding.Sharding | None = None
) -> tuple[Shapes, jax.ShapeDtypeStruct]:
    """The other arguments of `sampling.sample`: the columns that it reads, and a key per row."""
    shape = functools.partial(jax.ShapeDtypeStruct, sharding=place)
    columns = {name: shape((count, *x.shape), x.dtype) for name, x in task.prompts().items()}
    return columns, shape((count,), jax.random.key(0).dtype)


def without_remat(task: Task) -> Task:
    """The task with a network that keeps all activations, so that nothing is computed twice."""
    return with_model(task, remat="none")


def unplaced(tree: Shapes) -> Shapes:
    """The shapes without their shardings."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
