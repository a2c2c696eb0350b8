"""The memory of a compiled program on one device: what it needs, what there is, what takes most."""

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import jax
from jax.experimental.compilation_cache import compilation_cache

from diffjax.core.tables import format_memory
from diffjax.devices.chips import Chip

SHOWN = 6  # how many of the largest buffers a message names


@runtime_checkable
class Device(Protocol):
    """What we use of a jax.Device."""

    platform: str

    def memory_stats(self) -> dict[str, int] | None:
        """Its figures of memory, if it has any."""


@dataclass(frozen=True)
class Buffer:
    """An array of a compiled program: its bytes, its type, and the operation that makes it."""

    bytes: int
    type: str
    operation: str


def bytes_by_kind(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes of a compiled program, by kind.

    "alias": outputs that are written over their inputs. "peak": the most bytes that are alive at
    once by XLA's own accounting, and the program's code, which an accelerator keeps in the same
    memory.
    """
    sizes = compiled.memory_analysis()
    assert sizes is not None, "every backend of JAX says"
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


def usable_bytes(device: Device, chip: Chip | None) -> float | None:
    """Bytes that a program may use on a device, or None if they are not known, as for a CPU."""
    if device.platform == "gpu":  # JAX takes a share of the memory, which the user may change
        return (device.memory_stats() or {}).get("bytes_limit")
    return chip.usable_bytes if chip else None


def parse_out_of_memory(message: str) -> tuple[float, float] | None:
    """(bytes needed, bytes available), from XLA's message that memory ran out; None of others."""
    found = re.findall(r"\(([\d.]+)([KMGT])\)", message)
    if "exceeds available" not in message or len(found) < 2:
        return None
    scale = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    first, second = (float(number) * scale[unit] for number, unit in found[:2])
    return first, second


def dump_options(folder: str) -> dict[str, str | bool]:
    """Compiler options with which XLA writes its assignment of buffers into a folder."""
    return {"xla_dump_to": folder}


def dumped_buffers(folder: str) -> list[Buffer]:
    """The largest buffers of the program that was compiled with `dump_options`, largest first."""
    read = lambda ending: "\n".join(  # noqa: E731
        path.read_text() for path in Path(folder).glob(f"*after_optimizations{ending}.txt")
    )
    return buffers(read("-buffer-assignment"), read(""))[:SHOWN]


def largest_buffers(lowered: jax.stages.Lowered) -> list[Buffer]:
    """The largest buffers of a program, which is compiled once more to find them."""
    with tempfile.TemporaryDirectory() as folder, without_compilation_cache():
        lowered.compile(compiler_options=dump_options(folder))
        return dumped_buffers(folder)


@contextmanager
def without_compilation_cache() -> Iterator[None]:
    """Has XLA compile even programs that JAX has in its cache."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def buffers(assignment: str, text: str) -> list[Buffer]:
    """The buffers in a dump of XLA's buffer assignment, each named by the largest value it holds.

    text: the optimised HLO of the same program, which names the operations.
    """
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
            continue  # memory spaces S(1) and up are not the device's main memory
        name, size = re.sub(r"\{.*", "", match[1]), int(match[2])
        key = (allocation, match[3])
        if key not in slots or size > slots[key].bytes:
            argument = re.match(r"parameter (\d+)", what)
            operation = operations.get(name, name)
            shape = re.sub(r"\{[^}]*\}", "", match[4])
            slots[key] = Buffer(size, shape, f"argument {operation}" if argument else operation)
    return sorted(slots.values(), key=lambda buffer: -buffer.bytes)


def too_big(peak: float, available: float, found: list[Buffer]) -> str:
    """The message that a program does not fit: a few lines that name the largest buffers."""
    lines = [
        f"does not fit: needs {format_memory(peak)} per device, "
        f"but a device has {format_memory(available)}"
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
