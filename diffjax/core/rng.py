"""Random keys, derived from a root key, a name and a step; optionally one per example."""

import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from diffjax.core.types import PRNGKey, PRNGKeys


def stream(
    root: PRNGKey | PRNGKeys, name: str, step: int | Int[Array, ""] = 0
) -> PRNGKey | PRNGKeys:
    """The key of (root, name, step). It is the same after a restart, with nothing to save."""
    if root.ndim == 1:
        return jax.vmap(lambda key: stream(key, name, step))(root)
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(name.encode())), step)


def per_example(seeds: Int[Array, " b"]) -> PRNGKeys:
    """One root key per seed. The noise of an example then does not depend on its batch."""
    return jax.vmap(jax.random.key)(seeds)


def split(key: PRNGKey | PRNGKeys, num: int) -> Key[Array, "n *rest"]:
    """`num` keys along a new leading axis, from one key or from one key per example."""
    if key.ndim == 0:
        return jax.random.split(key, num)
    return jnp.swapaxes(jax.vmap(lambda k: jax.random.split(k, num))(key), 0, 1)


def normal(key: PRNGKey | PRNGKeys | None, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Standard normal noise of `shape`; with one key per example, example i draws from key i.

    Raises:
      ValueError: there is no key, or the number of keys is not the size of the batch.
    """
    if key is None:
        raise ValueError("key=None: noise cannot be drawn without a key; give one")
    if key.ndim == 0:
        return jax.random.normal(key, shape)
    if key.shape != shape[:1]:
        raise ValueError(f"{key.shape[0]} keys for a batch of {shape[0]}: give one key per example")
    return jax.vmap(lambda k: jax.random.normal(k, shape[1:]))(key)
