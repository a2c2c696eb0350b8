"""The losses of an autoencoder's adversary (Esser et al. 2021, "VQGAN", sec. 3.1)."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core.types import Image, PerExample
from diffjax.models.autoencoder.discriminator import Discriminator
from diffjax.tasks.task import Params, Peers

OFFSET, LARGEST = 1e-4, 1e4  # of the ratio of gradient norms, in VQGAN's code


@dataclass(frozen=True)
class Adversary:
    """A discriminator, from which step on it counts, and how much.

    weight: times the ratio of the gradients of reconstruction and adversary at the last layer.
    """

    model: Discriminator
    start: int = 50_001
    weight: float = 0.5

    def patches(self, params: Params, x: Image) -> Float[Array, "b i j 1"]:
        """The verdict on each patch."""
        found: Array = self.model.apply({"params": params}, x)  # type: ignore[assignment]
        return found

    def verdict(self, params: Params, x: Image) -> PerExample:
        """The mean over patches; high for pictures that look real."""
        return jnp.mean(self.patches(params, x), axis=(1, 2, 3))

    def hinge(self, params: Params, real: Image, made: Image) -> PerExample:
        """1/2 (relu(1 - D(real)) + relu(1 + D(made))), as a mean over patches."""
        of_real, of_made = jnp.split(self.patches(params, jnp.concatenate([real, made])), 2)
        both = jax.nn.relu(1 - of_real) + jax.nn.relu(1 + of_made)
        return 0.5 * jnp.mean(both, axis=(1, 2, 3))


def balance(
    last: Callable[[Array], Image],
    kernel: Float[Array, "i j f d"],
    d_rebuilt: Image,
    d_against: Image,
    peers: Peers,
) -> Float[Array, ""]:
    """|grad of reconstruction| / (|grad of adversary| + 1e-4) by the last kernel, at most 1e4.

    last: kernel -> pictures of this device. d_rebuilt, d_against: the gradients of each row's two
    losses by its picture. Losses are means over the whole batch, so other devices' rows count too.
    """
    _, pull = jax.vjp(last, kernel)

    def norm(gradient: Image) -> Float[Array, ""]:
        (mine,) = pull(gradient / len(gradient))
        return jnp.linalg.norm(jnp.mean(peers.all(mine[None]), axis=0))

    return jnp.minimum(norm(d_rebuilt) / (norm(d_against) + OFFSET), LARGEST)


def with_gradient(value: PerExample, x: Image, gradient: Image) -> PerExample:
    """`value`, whose gradient by x is already known: it is not computed a second time."""
    product = jnp.sum(x * jax.lax.stop_gradient(gradient), axis=(1, 2, 3))
    # in this order the added number is exactly 0
    return jax.lax.stop_gradient(value) + (product - jax.lax.stop_gradient(product))
