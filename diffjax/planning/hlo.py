"""What can be counted in a program without running it: in its jaxpr, and in XLA's text."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

# --- a jaxpr: what was asked for ---------------------------------------------------------------


class Product(NamedTuple):
    """A matrix product or convolution: FLOPs (2 per multiply-add), bytes of operands and result."""

    flops: int
    bytes: int


def products(jaxpr: Any) -> Iterator[Product]:
    """Every matrix product and convolution of a (closed) jaxpr, as often as it runs.

    A scan's body counts once for each of its steps, a shard_map's once for each shard, the
    costliest branch of a cond; the body of a while loop, whose length nobody knows, counts once.
    """
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, params = equation.primitive.name, equation.params
        if name in ("dot_general", "conv_general_dilated"):
            count = _dot_flops if name == "dot_general" else _conv_flops
            arrays = [v.aval for v in (*equation.invars[:2], equation.outvars[0])]
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
            inner = [p for sub in _subjaxprs(params) for p in products(sub)]
            for _ in range(times):
                yield from inner


def flops(jaxpr: Any) -> int:
    """FLOPs of the matrix products and convolutions of a jaxpr, over all devices."""
    return sum(product.flops for product in products(jaxpr))


def _subjaxprs(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                yield item


def _dot_flops(params, left, right, out) -> int:
    (contracted, _), _ = params["dimension_numbers"]
    return 2 * math.prod(left[axis] for axis in contracted) * math.prod(out)


def _conv_flops(params, left, right, out) -> int:
    _, in_axis, *window = params["dimension_numbers"].rhs_spec
    per_output = math.prod(right[axis] for axis in window) * right[in_axis]
    # the zeros that a strided convolution's gradient puts between pixels are no work
    return 2 * math.prod(out) * per_output // math.prod(params["lhs_dilation"])


# --- StableHLO: what XLA is given --------------------------------------------------------------


def stablehlo_lines(lowered: Any) -> int:
    """Lines of a lowered program: what grows with blocks that are written out one by one."""
    return lowered.as_text().count("\n")


# --- compiled HLO: what runs -------------------------------------------------------------------

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[(?:<=)?([\d,<=]*)\]")
_CALLED = re.compile(
    r"\b(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.\-]+)"
    r"|\b(?:branch_computations|called_computations)=\{([^}]*)\}"
)
_TRIPS = re.compile(r'"known_trip_count":\s*\{"n":\s*"(\d+)"\}')


@dataclass(frozen=True)
class Collective:
    """How often a device takes part in collectives of a kind in one run, and their bytes.

    bytes: of the whole array that is gathered, reduced or exchanged, as one device sees it. Over a
    ring of n, a gather or a reduce-scatter sends (n - 1) / n of it, an all-reduce twice that.
    """

    count: int
    bytes: int


@dataclass(frozen=True)
class Instruction:
    """One line of a computation: its name, type, opcode and the text after it."""

    name: str
    type: str
    opcode: str
    rest: str


def collectives(text: str) -> dict[str, Collective]:
    """The collectives of a compiled program's text, by kind, loops counted by their length.

    XLA for TPU overlaps a collective with work by writing it in a start, steps and a done, each
    with the collective in it: the start counts. An all-reduce of which each device keeps a slice
    (its "all-reduce-scatter" fusions) is a reduce-scatter.
    """
    totals: dict[str, Collective] = {}
    for name, (times, instructions) in _reached(text).items():
        types = {i.name: i.type for i in instructions}
        in_parts = name.startswith("async_collective_fusion") or any(
            '"AsyncCollective' in i.rest for i in instructions
        )
        starts = [i.rest for i in instructions if '"AsyncCollectiveStart"' in i.rest]
        started = {operand for rest in starts for operand in _operands(rest)}
        for instruction in instructions:
            kind = instruction.opcode.removesuffix("-start")
            if kind not in COLLECTIVES or (in_parts and instruction.name not in started):
                continue
            if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"
            names = _operands(instruction.rest)
            given = sum(type_bytes(types.get(operand, operand)) for operand in names)
            made = type_bytes(instruction.type)
            if instruction.opcode.endswith("-start") and made > given:
                made -= given  # a started collective's type lists what it was given first
            total = totals.get(kind, Collective(0, 0))
            size = times * max(given, made)
            totals[kind] = Collective(total.count + times, total.bytes + size)
    return {kind: totals[kind] for kind in COLLECTIVES if kind in totals}


def host_transfers(text: str) -> int:
    """Instructions of a compiled program that talk to the host: callbacks, feeds, host memory."""
    pattern = (
        r'is_host_transfer=true|\b(?:infeed|outfeed)\(|custom_call_target="[^"]*(?:callback|Host)'
        r"|\bcopy-start\(.*S\(5\)"
    )
    return sum(bool(re.search(pattern, line)) for line in text.splitlines())


def type_bytes(type_text: str) -> int:
    """Bytes of an HLO type, "f32[8,128]{1,0}" or a tuple of them, without padding."""
    total = 0
    for dtype, shape in _ARRAY.findall(type_text):
        if dtype == "token":
            continue
        bits = 8 if dtype == "pred" else int((re.search(r"\d+", dtype) or ["0"])[0])
        total += math.prod(int(n.strip("<=")) for n in shape.split(",") if n) * max(bits, 8) // 8
    return total


def _computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """All computations by name, and the name of the entry."""
    found: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            current = found.setdefault(match[2], [])
            entry = match[2] if match[1] else entry
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current.append(_instruction(match[1], match[2]))
    return found, entry


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    type_text, rest = text[:end], text[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    return Instruction(name, type_text, opcode, "(" + rest)


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` is closed."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return start + match.start()
    return len(text)


def _operands(rest: str) -> list[str]:
    """The operands' names, or their types where the text says them."""
    inside = re.sub(r"/\*.*?\*/", "", rest[1 : _closing(rest, 0)])
    return re.findall(r"%([\w.\-]+)", inside) or [
        item.strip() for item in re.split(r", (?![^\[]*\])", inside) if item.strip()
    ]


def _reached(text: str) -> dict[str, tuple[int, list[Instruction]]]:
    """Every computation that the entry calls, with how often it runs."""
    computations, entry = _computations(text)
    times: dict[str, int] = defaultdict(int)

    def visit(name: str, count: int) -> None:
        times[name] += count
        for instruction in computations.get(name, ()):
            trips = _trips(instruction, name, computations) if instruction.opcode == "while" else 1
            for one, many in _CALLED.findall(instruction.rest):
                for callee in [one] if one else re.findall(r"[\w.\-]+", many):
                    visit(callee, count * trips)

    visit(entry, 1)
    return {name: (count, computations.get(name, [])) for name, count in times.items()}


def _trips(loop: Instruction, caller: str, computations: dict[str, list[Instruction]]) -> int:
    """How often a loop's body runs: as XLA notes it, or as its condition says; 1 if neither does.

    XLA for TPU notes nothing, but a scan counts from 0 while it is below a constant, which the
    condition holds itself or is handed in the loop's tuple.
    """
    if known := _TRIPS.search(loop.rest):
        return int(known[1])
    found = re.search(r"condition=%?([\w.\-]+)", loop.rest)
    condition = {i.name: i for i in computations.get(found[1] if found else "", ())}
    outside = {i.name: i for i in computations[caller]}
    for compare in condition.values():
        if compare.opcode != "compare" or "direction=LT" not in compare.rest:
            continue
        bound = condition[_operands(compare.rest)[1]]
        if index := re.search(r"index=(\d+)", bound.rest):
            handed = _operands(outside[_operands(loop.rest)[0]].rest)
            bound = outside[handed[int(index[1])]]
        while bound.opcode == "copy":
            bound = outside[_operands(bound.rest)[0]]
        if bound.opcode == "constant":
            return int(bound.rest[1 : _closing(bound.rest, 0)])
    return 1
