"""T5 encoders with random parameters, and the files to compare with."""

import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.core import trees
from diffjax.models import t5

GOLDEN = Path(__file__).parents[1] / "golden"
CONFIGS = {
    "relu": t5.T5Config(30, 12, 5, 18, 2, 3, 8, 20, "relu"),
    "gated": t5.T5Config(30, 12, 3, 18, 2, 2, 32, 128, "gated-gelu"),
}


def random_params(config, dtype=jnp.float32):
    """Random tensors, also for norms; matrices keep the size of their input."""

    def draw(name, leaf):
        key = jax.random.key(zlib.crc32(name.encode()))
        scale = leaf.shape[0] ** -0.5 if name.endswith("kernel") else 1.0
        return (jax.random.normal(key, leaf.shape) * scale).astype(dtype)

    return trees.map_named(draw, t5.shapes(config))


def run(config, params, ids, mask, dtype=jnp.float32):
    """The output of the encoder, uncompiled, from NumPy parameters as `load` returns them."""
    model = t5.T5Encoder(config, dtype)
    return np.asarray(model.apply({"params": params}, jnp.asarray(ids), jnp.asarray(mask)))
