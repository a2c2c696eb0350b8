"""Random parameters for networks under test, made without compiling, which would take seconds."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.core import trees


def anywhere(net, seed=0, **given):
    """Random parameters of a network for these inputs, with no layer at zero, as after training."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), **given)["params"]
    rng = np.random.default_rng(seed)

    def one(name, leaf):
        values = rng.standard_normal(leaf.shape)
        if name.endswith("kernel"):
            values /= math.sqrt(math.prod(leaf.shape[-4:-1]))
        else:
            values = 0.05 * values + name.endswith("scale")
        return jnp.asarray(values, leaf.dtype)

    return trees.map_named(one, shapes)
