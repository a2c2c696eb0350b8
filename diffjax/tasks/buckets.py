"""Vectors as whole numbers: the principal components of each, in buckets (Ramesh et al. 2022).

The basis is measured on the data before training, and is part of the frozen weights of a task.
"""

from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.core.types import PerExample
from diffjax.tasks.task import Params
from diffjax.tasks.vectors import Vectors

Codes: TypeAlias = Int[Array, "b k"]
# Buckets are equally wide, and reach so many standard deviations to both sides of the mean.
REACH = 4.0
# The name of the basis among the frozen weights.
BASIS = "basis"


@dataclass(frozen=True)
class Buckets:
    """How many numbers a vector becomes, and how many values each may have.

    components: of the basis, in the order of their variance. count: the buckets of each. dots:
    those of the product of a picture's vector and its text's. The methods take the basis: `mean`
    [e], `components` [k e] of length 1, their standard deviations `deviation` [k]; and of the
    products `dot_mean`, `dot_deviation` and the share of each bucket in the data, `dot_shares`.
    """

    components: int
    count: int
    dots: int

    def shapes(self, width: int) -> Params:
        """The basis of vectors of this width, as shapes."""
        sizes = {
            "mean": (width,), "components": (self.components, width),
            "deviation": (self.components,), "dot_mean": (), "dot_deviation": (),
            "dot_shares": (self.dots,),
        }  # fmt: skip
        return {name: jax.ShapeDtypeStruct(size, jnp.float32) for name, size in sizes.items()}

    def encode(self, basis: Params, z: Vectors) -> Codes:
        """The bucket of each component of vectors."""
        centred = jnp.matmul(z - basis["mean"], basis["components"].T, precision="highest")
        return bucket(centred / basis["deviation"], self.count)

    def decode(self, basis: Params, codes: Codes) -> Vectors:
        """The vectors in the middle of these buckets."""
        centred = middle(codes, self.count) * basis["deviation"]
        return basis["mean"] + jnp.matmul(centred, basis["components"], precision="highest")

    def of_dot(self, basis: Params, dot: PerExample) -> Int[Array, " b"]:
        """The bucket of each product."""
        return bucket((dot - basis["dot_mean"]) / basis["dot_deviation"], self.dots)

    def likely_dots(self, basis: Params) -> Float[Array, " dots"]:
        """How likely each bucket is in the larger half of the products of the data.

        The bucket that the median falls into counts with the part of it that is above.
        """
        ends = jnp.cumsum(basis["dot_shares"])
        return jnp.minimum(basis["dot_shares"], jnp.maximum(ends - 0.5 * ends[-1], 0.0))


def bucket(x: Float[Array, "..."], count: int) -> Int[Array, "..."]:
    """The bucket of numbers of variance 1; the outermost buckets have all that is beyond."""
    place = jnp.floor((x + REACH) * (count / (2 * REACH)))
    return jnp.clip(place, 0, count - 1).astype(jnp.int32)


def middle(code: Int[Array, "..."], count: int) -> Float[Array, "..."]:
    """The middle of a bucket of numbers of variance 1."""
    return (code + 0.5) * (2 * REACH / count) - REACH
