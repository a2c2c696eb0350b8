"""Bytes of a compiled program on one device: how many, how many there are, and what takes them."""

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from diffjax.core.tables import format_memory
from diffjax.devices.chips import Chip

SHOWN = 6  # of the largest buffers


@dataclass(frozen=True)
class Buffer:
    """An array of a compiled program: its bytes, its type, and the operation that makes it."""

    bytes: int
    type: str
    operation: str


def of(compiled: Any) -> dict[str, int]:
    """Bytes of a compiled program, by kind; "alias": output that takes its input's place.

    "peak" is what XLA's own accounting has alive at once, and the program's code, which lies in
    the same memory on an accelerator.
    """
    sizes = compiled.memory_analysis()
    kinds = {
        "arguments": sizes.argument_size_in_bytes,
        "temporaries": sizes.temp_size_in_bytes,
        "output": sizes.output_size_in_bytes,
        "alias": sizes.alias_size_in_bytes,
        "code": sizes.generated_code_size_in_bytes,
    }
    together = kinds["arguments"] + kinds["temporaries"] + kinds["output"] - kinds["alias"]
    peak = max(together, sizes.peak_memory_in_bytes) + kinds["code"]
    return {**kinds, "peak": peak}


def limit(device: Any, chip: Chip | None) -> float | None:
    """Bytes that a program may use on a device; None where nobody says (a CPU)."""
    if device.platform == "gpu":  # JAX takes a share of the memory, which the user may change
        return (device.memory_stats() or {}).get("bytes_limit")
    return chip.usable_bytes if chip else None


def needed(message: str) -> tuple[float, float] | None:
    """(bytes needed, bytes there are) of XLA's complaint that memory ran out."""
    found = re.findall(r"\(([\d.]+)([KMGT])\)", message)
    if "exceeds available" not in message or len(found) < 2:
        return None
    scale = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    first, second = (float(number) * scale[unit] for number, unit in found[:2])
    return first, second


def writing_down(folder: str) -> dict[str, Any]:
    """The compiler options that have XLA write into a folder where it puts what."""
    return {"xla_dump_to": folder}


def written_down(folder: str) -> list[Buffer]:
    """The buffers of the one program whose compilation wrote into a folder, largest first."""
    read = lambda ending: "\n".join(  # noqa: E731
        path.read_text() for path in Path(folder).glob(f"*after_optimizations{ending}.txt")
    )
    return buffers(read("-buffer-assignment"), read(""))[:SHOWN]


def largest(lowered: Any) -> list[Buffer]:
    """The largest buffers of a lowered program that compiles, by compiling it once more."""
    with tempfile.TemporaryDirectory() as folder, compiling_afresh():
        lowered.compile(compiler_options=writing_down(folder))
        return written_down(folder)


@contextmanager
def compiling_afresh() -> Iterator[None]:
    """Without the cache of compiled programs, which would answer in XLA's place."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def buffers(assignment: str, text: str) -> list[Buffer]:
    """The buffers of XLA's buffer assignment, each named by the largest value it holds."""
    operations = {
        name: operation.split("/", 1)[-1]
        for name, operation in re.findall(r'%?([\w.\-]+) = .*?op_name="([^"]*)"', text)
    }
    slots: dict[tuple[str, str], Buffer] = {}
    allocation = what = ""
    for line in assignment.splitlines():
        if match := re.match(r"allocation (\d+): size \d+, (.*)", line):
            allocation, what = match[1], match[2]
        match = re.match(r" value: <\d+ (\S+) @\d+> \(size=(\d+),offset=(\d+)\): (.*)", line)
        if not match or "thread-local" in what or re.search(r"S\([1-9]\)", match[4]):
            continue  # S(1) and up are other memories than the device's own
        name, size = re.sub(r"\{.*", "", match[1]), int(match[2])
        key = (allocation, match[3])
        if key not in slots or size > slots[key].bytes:
            argument = re.match(r"parameter (\d+)", what)
            operation = operations.get(name, name)
            shape = re.sub(r"\{[^}]*\}", "", match[4])
            slots[key] = Buffer(size, shape, f"argument {operation}" if argument else operation)
    return sorted(slots.values(), key=lambda buffer: -buffer.bytes)


def too_big(peak: float, available: float, found: list[Buffer]) -> str:
    """Why a program does not fit, in a few lines; equal buffers share one."""
    lines = [
        f"does not fit: needs {format_memory(peak)} per device, "
        f"of which there are {format_memory(available)}"
    ]
    alike: dict[tuple[int, str], list[str]] = defaultdict(list)
    for buffer in found:
        alike[buffer.bytes, buffer.type].append(buffer.operation)
    for (size, shape), operations in alike.items():
        times = f"{len(operations)} x " if len(operations) > 1 else ""
        where = ", ".join(dict.fromkeys(operations))
        lines.append(f"  {times}{format_memory(size)} {shape}: {where}")
    lines.append(
        "try a smaller data.batch_size, more train.accumulate, more mesh.fsdp, "
        "another model.remat, or more chips"
    )
    return "\n".join(lines)
