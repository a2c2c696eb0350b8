"""What the timed steps of a config share: flags, the clock, and what is said of a program."""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from ml_collections import ConfigDict

from benchmarks.protocol import forget_peak, peak_bytes
from diffjax.build import config
from diffjax.build.check import check
from diffjax.core.tables import format_memory
from diffjax.devices import chips
from diffjax.planning import jaxprs, memory

GROUPS = 5  # of steps; their median counts


@dataclass(frozen=True)
class Timed:
    """A compiled program: FLOPs of its trace, seconds to compile, seconds a call, bytes."""

    flops: int
    compile_s: float
    call_s: float
    bytes: dict[str, int]

    def line(self, name: str, images: int) -> str:
        """One line for people; `images` are made, or learnt from, by one call."""
        return (
            f"  {name:<18} {self.call_s * 1e3:,.1f} ms, {images / self.call_s:,.2f} images/s, "
            f"{self.flops / self.call_s / 1e9:,.1f} GFLOP/s of {self.flops / 1e9:,.2f} GFLOP, "
            f"compiled in {self.compile_s:.1f} s, {format_memory(self.bytes['peak'])} by XLA"
        )


def parser(doc: str) -> argparse.ArgumentParser:
    """The flags of both scripts; what else is given are overrides, as of `diffjax.main`."""
    flags = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    flags.add_argument(
        "--config", action="append", default=[], help="FILE:PRESET, may be given many times"
    )
    flags.add_argument("--batch", type=int, help="pictures a step, over all devices")
    flags.add_argument("--steps", type=int, default=10, help="calls that are timed")
    flags.add_argument("--dtype", choices=("float32", "bfloat16"), help="that the network works in")
    return flags


def options_of(spec: str, flags: argparse.Namespace, overrides: list[str]) -> ConfigDict:
    """The config of "path/to/file.py:preset" with the flags and overrides applied, checked.

    Raises:
      ConfigError: there is none, or it cannot be.
    """
    options = config.load(spec)
    if flags.batch:
        options.data.batch_size = flags.batch
    if flags.dtype:
        options.model.dtype = flags.dtype
    config.override(options, overrides)
    check(options)
    return options


def timed(
    jitted: Any, arguments: tuple[Any, ...], steps: int, call: Callable | None = None
) -> Timed:
    """Compile and time a jitted function.

    call: (compiled, arguments) -> the arguments of the next call, as a step needs them that takes
    its state's memory; None: they stay. Calls are queued as training queues them, and their end
    is waited for once a group.
    """
    start = time.perf_counter()
    traced = jitted.trace(*arguments)
    compiled = traced.lower().compile()
    compile_s = time.perf_counter() - start
    forget_peak()  # the compiler's
    a_group = max(1, steps // GROUPS)
    seconds = []
    for group in range(1 + GROUPS):  # the first warms up
        start = time.perf_counter()
        for _ in range(a_group if group else 1):
            if call:
                arguments = result = call(compiled, arguments)
            else:
                result = compiled(*arguments)
        jax.block_until_ready(result)
        if group:
            seconds.append((time.perf_counter() - start) / a_group)
    call_s = statistics.median(seconds)
    return Timed(jaxprs.flops(traced.jaxpr), compile_s, call_s, memory.bytes_by_kind(compiled))


def mfu(flops: float, seconds: float, devices: int = 1) -> str:
    """The share of the devices' bfloat16 peak; "" where `chips` has none of theirs."""
    chip = chips.chip_of(jax.devices()[0].device_kind)
    if chip is None:
        return ""
    share = flops / seconds / (chip.peak_flops * devices)
    return f", MFU {share:.1%} of {chip.name}'s bfloat16 peak"


def start() -> None:
    """Say what it runs on; programs kept by earlier runs would hide what compiling takes."""
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"jax {jax.__version__}, {jax.device_count()} x {jax.devices()[0].device_kind}")


def held() -> str:
    """The most memory held: of a device where it counts, else of the process since it compiled."""
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    size = format_memory(peak or peak_bytes())
    return f"{size} held at most by {'a device' if peak else 'the process'}"
