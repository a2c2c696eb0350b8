"""The training step of a task, alone or on a mesh."""

import functools

import jax
import optax

from diffjax.devices import mesh as mesh_lib
from diffjax.devices.spread import spread
from diffjax.training import averages, state
from diffjax.training import step as step_lib
from tests.tasks.stages import KEY

TX = optax.adam(1e-3)
AVERAGES = averages.parse(["decay_0.99"])


def step_of(task, **options):
    return functools.partial(
        step_lib.train_step, task=task, tx=TX, root_key=KEY, averages=AVERAGES, **options
    )


def create(task):
    return functools.partial(state.create, task.init, TX, AVERAGES)


def placed(task, mesh, **options):
    """The jitted step on a mesh, the state's shapes, and where state and batch lie."""
    shapes = jax.eval_shape(create(task), KEY)
    place = mesh_lib.state_sharding(mesh, shapes, task.sharding)
    batch_place = mesh_lib.batch_sharding(mesh)
    step = jax.jit(
        step_of(task, spread=spread(mesh, place.params, task.sharding), **options),
        in_shardings=(place, batch_place),
        out_shardings=(place, None),
        donate_argnums=0,
    )
    return step, shapes, place, batch_place
