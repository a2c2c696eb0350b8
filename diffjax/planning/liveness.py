"""How many bytes a program keeps at once, judged by its jaxpr alone: nothing is compiled."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

# What XLA computes where it is used, rather than keeps: it reads again what went in.
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
    """An equation with its calls written out: values are numbers, each made once."""

    name: str
    params: dict[str, Any]
    read: tuple[int, ...]
    made: tuple[int, ...]
    sizes: tuple[int, ...]


def peak(jaxpr: Any) -> int:
    """The most bytes of intermediate values and results alive at once; arguments are left out.

    An estimate. A chain of elementwise operations is taken to be one, that keeps what went in and
    not its steps; every other result takes room until it was last used, in the order written.
    XLA's own order and choices differ: only compiling tells.
    """
    lines, results = _written_out(jaxpr)
    roots: dict[int, frozenset[int]] = defaultdict(frozenset)  # the kept values behind a value
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
        within = max((peak(sub) for sub in _subjaxprs(line.params)), default=0)
        # a loop's stacked results are there beside what one turn of it needs
        most = max(most, alive + (made + within if line.name == "scan" else max(made, within)))
        alive += made - sum(size[value] for value in ends[i])
    return most


def on_a_device(jaxpr: Any) -> Any:
    """What one device does of a program that is spread by hand: the jaxpr of its shard_map.

    The whole, where there is none.
    """
    for line in _written_out(jaxpr)[0]:
        if line.name == "shard_map":
            return line.params["jaxpr"]
    return jaxpr


def _written_out(jaxpr: Any) -> tuple[list[Line], list[int]]:
    """The lines of a jaxpr with the calls in it replaced by what they call, and its results."""
    numbers = itertools.count()
    lines: list[Line] = []

    def write(jaxpr: Any, arguments: list[int]) -> list[int]:
        jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
        known = dict(zip(jaxpr.invars, arguments, strict=True))
        number = lambda v: known[v] if not hasattr(v, "val") else next(numbers)  # noqa: E731
        known |= {v: next(numbers) for v in jaxpr.constvars}
        for equation in jaxpr.eqns:
            read = [number(v) for v in equation.invars]
            if equation.primitive.name in CALLS:
                (called,) = itertools.islice(_subjaxprs(equation.params), 1)
                known |= dict(zip(equation.outvars, write(called, read), strict=True))
                continue
            known |= {v: next(numbers) for v in equation.outvars}
            made = tuple(known[v] for v in equation.outvars)
            sizes = tuple(_bytes(v.aval) for v in equation.outvars)
            lines.append(Line(equation.primitive.name, equation.params, tuple(read), made, sizes))
        return [number(v) for v in jaxpr.outvars]

    inner = getattr(jaxpr, "jaxpr", jaxpr)
    return lines, write(inner, [next(numbers) for _ in inner.invars])


def _bytes(aval: Any) -> int:
    try:
        itemsize = np.dtype(aval.dtype).itemsize
    except TypeError:  # a key
        itemsize = 8
    return math.prod(getattr(aval, "shape", ())) * itemsize


def _subjaxprs(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                yield item
