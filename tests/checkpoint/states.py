"""A small train state with all kinds of leaves of a real one, and folders of its checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffjax import checkpoint
from diffjax.devices.mesh import make_mesh, state_sharding
from diffjax.models.layers.sharding import RULES
from diffjax.training.state import TrainState

TX = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
POSITION = {"next_index": 17}


def state(step: int = 3, size: int = 64) -> TrainState:
    """Float32, bfloat16 and integer leaves in dicts, tuples and named tuples."""
    rng = np.random.default_rng(step)
    params = {
        "out": {"kernel": jnp.asarray(rng.normal(size=(size, 16)), jnp.float32)},
        "norm": {"bias": jnp.asarray(rng.normal(size=8), jnp.bfloat16)},
    }
    averages = {"decay_0.9": jax.tree.map(lambda x: x.astype(jnp.float32) + 1, params)}
    return TrainState(jnp.int32(step), params, averages, TX.init(params))


def like(mesh: jax.sharding.Mesh | None = None, size: int = 64) -> TrainState:
    """The shapes of `state()`, with the shardings of the mesh."""
    shapes = jax.eval_shape(lambda: state(size=size))
    place = state_sharding(mesh or make_mesh(devices=jax.devices()[:1]), shapes, RULES)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, place
    )


def fill(path, *steps: int, keep: int = 10, **options) -> None:
    """Save these steps in `path`, one after the other, and wait for the disk."""
    with checkpoint.open_dir(path, keep=keep, **options) as checkpoints:
        for step in steps:
            checkpoint.save(checkpoints, step, state(step), POSITION)


def flip(file, position: int = 0, bit: int = 0) -> None:
    """Flip one bit of the file."""
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)


def array_files(path) -> list:
    """The files that hold the arrays of a step, the largest first."""
    return sorted(path.glob("state/ocdbt.process_0/d/*"), key=lambda f: -f.stat().st_size)
