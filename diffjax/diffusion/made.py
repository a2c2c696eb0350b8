"""Schedules and weightings that compare by value: equal if made by one maker from equal arguments.

jax finds a compiled program again by the functions that are in it. Two closures over the same
numbers are different functions, and would be compiled twice.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

P = ParamSpec("P")
# A function of numbers, each on its own: of u or of logsnr.
Pointwise: TypeAlias = Callable[[Array], Array]


@dataclass(frozen=True, repr=False)
class Made:
    """The function that `maker` made from `arguments`; its hash and its equality are theirs."""

    maker: Callable[..., Pointwise]
    arguments: tuple[tuple[str, object], ...]
    function: Pointwise = field(compare=False)

    def __call__(self, x: ArrayLike) -> Array:
        """The function's value."""
        return jnp.asarray(self.function(x))  # type: ignore[arg-type]

    def __repr__(self) -> str:
        """As a call that makes it: cosine(logsnr_min=-20.0, logsnr_max=20.0)."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments)
        return f"{self.maker.__name__}({arguments})"


def by_value(make: Callable[P, Pointwise]) -> Callable[P, Made]:
    """The maker, of functions that compare by value. Its arguments must be hashable, or arrays."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def maker(*args: P.args, **kwargs: P.kwargs) -> Made:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = tuple((name, _hashable(value)) for name, value in bound.arguments.items())
        return Made(make, arguments, make(*args, **kwargs))

    return maker


def _hashable(value: object) -> object:
    return tuple(value.tolist()) if isinstance(value, np.ndarray) else value
