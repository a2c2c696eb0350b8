"""What a program computes, read from its jaxpr: the programs inside it, and its FLOPs."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

AnyJaxpr: TypeAlias = Jaxpr | ClosedJaxpr


class Product(NamedTuple):
    """A matrix product or convolution: FLOPs (2 per multiply-add), bytes of operands and result."""

    flops: int
    bytes: int


def products(jaxpr: AnyJaxpr) -> Iterator[Product]:
    """Every matrix product and convolution of a (closed) jaxpr, repeated as often as it runs.

    The body of a scan counts once for each of its steps, that of a shard_map once for each shard.
    Of a cond the costliest branch counts. The body of a while loop counts once, because the number
    of its steps is not known.
    """
    for equation in opened(jaxpr).eqns:
        name, params = equation.primitive.name, equation.params
        if name in ("dot_general", "conv_general_dilated"):
            count = _dot_flops if name == "dot_general" else _conv_flops
            arrays = [_array_of(v) for v in (*equation.invars[:2], equation.outvars[0])]
            size = sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in arrays)
            yield Product(count(params, *[a.shape for a in arrays]), size)
        elif name == "cond":
            branches = [list(products(branch)) for branch in params["branches"]]
            yield from max(branches, key=lambda branch: sum(p.flops for p in branch))
        else:
            times = 1
            if name == "scan":
                times = params["length"]
            elif name == "shard_map":
                sides = dict(params["mesh"].shape)
                axes = next(v for name, v in params.items() if name.endswith("manual_axes"))
                times = math.prod(sides[axis] for axis in axes)
            inner = [p for sub in subjaxprs(params) for p in products(sub)]
            for _ in range(times):
                yield from inner


def flops(jaxpr: AnyJaxpr) -> int:
    """FLOPs of the matrix products and convolutions of a jaxpr, over all devices."""
    return sum(product.flops for product in products(jaxpr))


def opened(jaxpr: AnyJaxpr) -> Jaxpr:
    """The jaxpr itself, without the constants of a closed one."""
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr


def subjaxprs(params: Mapping[str, object]) -> Iterator[AnyJaxpr]:
    """The jaxprs among the parameters of an equation, such as the body of a scan."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, Jaxpr | ClosedJaxpr):
                yield item


def _array_of(value: Var | Literal) -> ShapedArray:
    assert isinstance(value.aval, ShapedArray)  # products are of arrays alone
    return value.aval


def _dot_flops(params, left, right, out) -> int:
    (contracted, _), _ = params["dimension_numbers"]
    return 2 * math.prod(left[axis] for axis in contracted) * math.prod(out)


def _conv_flops(params, left, right, out) -> int:
    _, in_axis, *window = params["dimension_numbers"].rhs_spec
    per_output = math.prod(right[axis] for axis in window) * right[in_axis]
    # the gradient of a strided convolution puts zeros between the pixels; those cost nothing
    return 2 * math.prod(out) * per_output // math.prod(params["lhs_dilation"])
