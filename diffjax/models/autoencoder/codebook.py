"""A codebook: each place of a latent becomes the nearest of K vectors (VQ-VAE).

van den Oord et al. 2017, "Neural Discrete Representation Learning".
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.core.types import PerExample

Codes = Float[Array, "k z"]


class Quantised(NamedTuple):
    """The nearest codes of latents, and how far the latents are from them.

    vector: of the code; passes the gradient straight to the latent. code: its number. to_code: the
    mean square distance, which moves the vectors alone. to_latent: the same number, which moves the
    latent alone.
    """

    vector: Float[Array, "b h w z"]
    code: Int[Array, "b h w"]
    to_code: PerExample
    to_latent: PerExample


class Codebook(nn.Module):
    """K vectors of z numbers, uniform in [-1/K, 1/K] at first, as in VQGAN's code."""

    num: int
    width: int

    def setup(self) -> None:
        """The codes."""
        self.vectors = self.param("codes", _uniform, (self.num, self.width))

    def __call__(self, z: Float[Array, "b h w z"]) -> Quantised:
        """Each place's nearest code."""
        code = nearest(z, self.vectors)
        vector = self.vectors[code]
        away = lambda a, b: jnp.mean(jnp.square(a - b), axis=(1, 2, 3))  # noqa: E731
        return Quantised(
            z + jax.lax.stop_gradient(vector - z),
            code,
            away(vector, jax.lax.stop_gradient(z)),
            away(z, jax.lax.stop_gradient(vector)),
        )

    def at(self, code: Int[Array, "b h w"]) -> Float[Array, "b h w z"]:
        """The vectors of these codes."""
        return self.vectors[code]


def nearest(z: Float[Array, "b h w z"], codes: Codes) -> Int[Array, "b h w"]:
    """The number of the code with the smallest distance; the first of equal ones."""
    # |z|^2 is the same for all codes
    away = jnp.sum(jnp.square(codes), axis=-1) - 2 * jnp.einsum(
        "bhwz,kz->bhwk", z, codes, precision=jax.lax.Precision.HIGHEST
    )
    return jnp.argmin(away, axis=-1)


def _uniform(key: Array, shape: tuple[int, int]) -> Codes:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) / shape[0]
