"""Estimates from a jaxpr how much memory a program needs, without compiling it."""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jax.extend.core import Literal, Var

from diffjax.planning.jaxprs import AnyJaxpr, opened, subjaxprs

# Elementwise operations, whose results XLA does not keep: it computes them again from what it kept.
FUSED = frozenset(
    """
    add sub mul div neg max min abs sign exp exp2 log log1p expm1 tanh logistic erf rsqrt sqrt
    square integer_pow pow select_n convert_element_type broadcast_in_dim reshape squeeze
    expand_dims transpose eq ne lt le gt ge and or not is_finite stop_gradient copy copy_p iota
    clamp sin cos floor round add_any slice rev pad shift_left shift_right_logical xor
    shift_right_arithmetic random_wrap random_unwrap optimization_barrier sharding_constraint
    bitcast_convert_type
    """.split()  # noqa: SIM905
)
CALLS = ("pjit", "jit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call")


class Line(NamedTuple):
    """An equation of a jaxpr in which all calls have been inlined.

    Each value has a number: `read` are the operands, `made` the results, and `sizes` their bytes.
    """

    name: str
    params: Mapping[str, object]
    read: tuple[int, ...]
    made: tuple[int, ...]
    sizes: tuple[int, ...]


def peak(jaxpr: AnyJaxpr) -> int:
    """The most bytes of intermediate values and results that are alive at once, without arguments.

    This is an estimate. It takes a chain of elementwise operations as one operation, which keeps
    its inputs and none of its steps. Every other result takes memory until its last use, in the
    order of the equations. XLA may order and fuse differently; only compiling gives its figure.
    """
    lines, results = _inlined(jaxpr)
    # for each value the kept values from which it can be computed again
    roots: dict[int, frozenset[int]] = defaultdict(frozenset)
    size: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, line in enumerate(lines):
        behind = frozenset().union(*(roots[value] for value in line.read))
        last |= dict.fromkeys(behind, i)
        for value, bytes_ in zip(line.made, line.sizes, strict=True):
            if line.name in FUSED:
                roots[value] = behind
            else:
                roots[value], size[value], last[value] = frozenset([value]), bytes_, i
    for value in results:
        last |= dict.fromkeys(roots[value], len(lines))
    ends = defaultdict(list)
    for value, i in last.items():
        ends[i].append(value)
    alive = most = 0
    for i, line in enumerate(lines):
        made = sum(size.get(value, 0) for value in line.made)
        within = max((peak(sub) for sub in subjaxprs(line.params)), default=0)
        # the stacked results of a scan are alive while one of its steps runs
        most = max(most, alive + (made + within if line.name == "scan" else max(made, within)))
        alive += made - sum(size[value] for value in ends[i])
    return most


def on_a_device(jaxpr: AnyJaxpr) -> AnyJaxpr:
    """The part of a program that one device runs: the body of its shard_map, if it has one."""
    for line in _inlined(jaxpr)[0]:
        if line.name == "shard_map":
            return next(subjaxprs(line.params))
    return jaxpr


def _inlined(jaxpr: AnyJaxpr) -> tuple[list[Line], list[int]]:
    """The lines of a jaxpr with all calls inlined, and the numbers of its results."""
    numbers = itertools.count()
    lines: list[Line] = []

    def write(jaxpr: AnyJaxpr, arguments: list[int]) -> list[int]:
        inner = opened(jaxpr)
        known: dict[Var, int] = dict(zip(inner.invars, arguments, strict=True))

        def number(value: Var | Literal) -> int:
            return next(numbers) if isinstance(value, Literal) else known[value]

        known |= {v: next(numbers) for v in inner.constvars}
        for equation in inner.eqns:
            read = [number(v) for v in equation.invars]
            if equation.primitive.name in CALLS:
                (called,) = itertools.islice(subjaxprs(equation.params), 1)
                known |= dict(zip(equation.outvars, write(called, read), strict=True))
                continue
            known |= {v: next(numbers) for v in equation.outvars}
            made = tuple(known[v] for v in equation.outvars)
            sizes = tuple(_bytes(v.aval) for v in equation.outvars)
            lines.append(Line(equation.primitive.name, equation.params, tuple(read), made, sizes))
        return [number(v) for v in inner.outvars]

    return lines, write(jaxpr, [next(numbers) for _ in opened(jaxpr).invars])


def _bytes(aval) -> int:
    try:
        itemsize = np.dtype(aval.dtype).itemsize
    except TypeError:  # the type of a random key
        itemsize = 8
    return math.prod(getattr(aval, "shape", ())) * itemsize
