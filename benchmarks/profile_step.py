"""Shows where the time of a step goes on a CPU, by kind of operation.

    python -m benchmarks.profile_step W1 train [--steps 4] [--largest 10] [--keep]

Runs the step of `benchmarks.worker` under jax.profiler, adds up the time of each operation of the
compiled program, and groups operations by their purpose. The time in the title is measured without
the profiler. Loops and calls are not counted, since the operations in them are.
"""

import argparse
import re
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks.page import fill
from benchmarks.worker import program_of, work_of
from benchmarks.works import MODES, WORKS

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\S+|\(.*?\)) ([\w\-]+)\(")
CONTROL = ("while", "call", "conditional")  # the operations inside them are counted instead


@dataclass(frozen=True)
class Operation:
    """An instruction of the compiled program: its type, opcode, the path of its JAX operation.

    inside: the opcodes of the computation that a fusion calls. looped: it is in a loop's body.
    """

    type: str
    opcode: str
    path: str
    inside: frozenset[str]
    looped: bool = False

    def kind(self, trains: bool) -> str:
        """Its purpose. In the steps of the works, the only loops are gradients of kernels."""
        opcodes = self.inside | {self.opcode}
        backward = ", backward" if "transpose(" in self.path else ""
        of_convolution = "conv" in self.path and backward
        if "random" in self.path or "threefry" in self.path:
            return "noise"
        if self.looped:
            return "kernel gradients: products in strips"
        if "reverse" in opcodes:
            return "kernels turned round for picture gradients"
        if "convolution" in opcodes:
            return "picture gradients: convolutions" if backward else "convolutions"
        if "dot" in opcodes:
            if of_convolution:
                return "gradients of convolutions after doubling"
            return f"1x1 convolutions, projections, attention{backward}"
        if trains and self.path and "jvp" not in self.path:
            return "Adam and the loss's ends"
        if of_convolution:
            return "zeros around and cuts for gradients of convolutions"
        if re.search("norm|silu", self.path):
            return f"norms and silu{backward}"
        return f"sums, skips and copies{backward}"


def operations(text: str) -> dict[str, Operation]:
    """The instructions of a compiled program's text, by name."""
    inside: dict[str, set[str]] = defaultdict(set)
    lines: list[tuple[str, str, re.Match[str]]] = []
    current = ""
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            current = match[1]
        elif match := INSTRUCTION.match(line):
            inside[current].add(match[3])
            lines.append((current, line, match))
    bodies = set(re.findall(r"\bbody=%?([\w.\-]+)", text))
    for caller, line, _ in lines:  # the text has a body before the calls of it
        bodies |= set(re.findall(r"to_apply=%?([\w.\-]+)", line)) if caller in bodies else set()
    found = {}
    for computation, line, match in lines:
        path = re.search(r'op_name="([^"]*)"', line)
        called = re.search(r"calls=%?([\w.\-]+)", line)
        found[match[1]] = Operation(
            match[2],
            match[3],
            path[1] if path else "",
            frozenset(inside[called[1]] if called else ()),
            computation in bodies,
        )
    return found


def milliseconds(run, num_steps: int) -> dict[str, float]:
    """Milliseconds per step of each operation, by its name in the compiled program."""
    total: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for i in range(num_steps):
                run(i)
        (path,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(path))
        for plane in profile.planes:
            for line in plane.lines:
                for event in line.events:
                    name = dict(event.stats).get("hlo_op")
                    if name:
                        total[name] += event.duration_ns / 1e6 / num_steps
    return total


def table(kinds: dict[str, list[float]], title: str) -> str:
    """The kinds of operations as a Markdown table, the longest first."""
    total = sum(sum(times) for times in kinds.values())
    lines = [f"| {title} | operations | ms | share |", "|---|---:|---:|---:|"]
    for kind, times in sorted(kinds.items(), key=lambda item: -sum(item[1])):
        lines.append(f"| {kind} | {len(times)} | {sum(times):,.0f} | {sum(times) / total:.1%} |")
    return "\n".join([*lines, f"| together | | {total:,.0f} | |"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--largest", type=int, default=0, help="also list this many operations")
    parser.add_argument("--keep", action="store_true", help="write it into benchmarks/README.md")
    flags = parser.parse_args()
    program = program_of(work_of(flags.work, jnp.float32), flags.mode)
    known = operations(program.compiled.as_text())
    for i in range(3):
        program.run(i)
    nothing = Operation("", "unknown", "", frozenset())
    spent = {
        name: ms
        for name, ms in milliseconds(program.run, flags.steps).items()
        if known.get(name, nothing).opcode not in CONTROL
    }
    kinds: dict[str, list[float]] = defaultdict(list)
    for name, ms in spent.items():
        kinds[known.get(name, nothing).kind(flags.mode == "train")].append(ms)
    start = time.perf_counter()
    for i in range(flags.steps):
        program.run(i)
    wall = (time.perf_counter() - start) / flags.steps * 1e3
    text = table(kinds, f"{flags.work} {flags.mode}, a step of {wall:,.0f} ms")
    print(text)
    if flags.keep:
        fill(f"profile {flags.work} {flags.mode}", text)
    for name in sorted(spent, key=lambda name: -spent[name])[: flags.largest]:
        one = known.get(name, nothing)
        print(f"{spent[name]:8.1f} ms  {name}  {one.type[:40]}  {one.path[-90:]}")


if __name__ == "__main__":
    main()
