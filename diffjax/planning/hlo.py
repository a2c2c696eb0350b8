"""What a compiled program does, read from XLA's text: collectives, transfers to the host, sizes."""

import math
import re
from collections import defaultdict
from dataclasses import dataclass

import jax

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
    """How often one device takes part in collectives of a kind in one run, and their bytes.

    bytes: the sum of the sizes of the whole arrays that are gathered, reduced or exchanged, as one
    device sees them. In a ring of n devices, a gather or a reduce-scatter sends (n - 1) / n of
    them, an all-reduce twice that.
    """

    count: int
    bytes: int


@dataclass(frozen=True)
class Instruction:
    """One line of a computation: its name, type, opcode, and the rest of the line."""

    name: str
    type: str
    opcode: str
    rest: str


def stablehlo_lines(lowered: jax.stages.Lowered) -> int:
    """Lines of a lowered program; they grow with every block that is not part of a scan."""
    return lowered.as_text().count("\n")


def collectives(text: str) -> dict[str, Collective]:
    """The collectives of a compiled program's text, by kind; each counts as often as it runs.

    To overlap a collective with other work, XLA for TPU writes it as a start, steps and a done,
    and repeats the collective in each of them; only the start counts here. An all-reduce of which
    each device keeps a slice (an "all-reduce-scatter" fusion) counts as a reduce-scatter.
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
                made -= given  # the type of a start lists its operands before its results
            total = totals.get(kind, Collective(0, 0))
            size = times * max(given, made)
            totals[kind] = Collective(total.count + times, total.bytes + size)
    return {kind: totals[kind] for kind in COLLECTIVES if kind in totals}


def host_transfers(text: str) -> int:
    """The number of instructions that talk to the host: callbacks, feeds, host memory."""
    pattern = (
        r'is_host_transfer=true|\b(?:infeed|outfeed)\(|custom_call_target="[^"]*(?:callback|Host)'
        r"|\bcopy-start\(.*S\(5\)"
    )
    return sum(bool(re.search(pattern, line)) for line in text.splitlines())


def type_bytes(type_text: str) -> int:
    """Bytes of an HLO type such as "f32[8,128]{1,0}", or of a tuple of types; without padding."""
    total = 0
    for dtype, shape in _ARRAY.findall(type_text):
        if dtype == "token":
            continue
        bits = 8 if dtype == "pred" else int((re.search(r"\d+", dtype) or ["0"])[0])
        total += math.prod(int(n.strip("<=")) for n in shape.split(",") if n) * max(bits, 8) // 8
    return total


def _computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """All computations of a program by name, and the name of the one where it starts."""
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
    """The place of the parenthesis that closes the one at `start`."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return start + match.start()
    return len(text)


def _operands(rest: str) -> list[str]:
    """The names of the operands, or their types if the text gives types."""
    inside = re.sub(r"/\*.*?\*/", "", rest[1 : _closing(rest, 0)])
    return re.findall(r"%([\w.\-]+)", inside) or [
        item.strip() for item in re.split(r", (?![^\[]*\])", inside) if item.strip()
    ]


def _reached(text: str) -> dict[str, tuple[int, list[Instruction]]]:
    """Every computation that the program runs, with how often it runs and its instructions."""
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
    """How often the body of a loop runs: XLA's own note, else its condition; 1 if neither says.

    XLA for TPU writes no such note. But a scan counts from 0 up to a constant, which stands in the
    condition or is passed to it in the loop's tuple.
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
