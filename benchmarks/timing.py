"""What `train_step` and `sample_step` share: flags, the clock, and the lines that they print."""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from ml_collections import ConfigDict

from benchmarks.protocol import forget_peak, peak_bytes
from diffjax.build.check import check
from diffjax.build.options import config
from diffjax.core.tables import format_memory
from diffjax.devices import chips
from diffjax.planning import jaxprs, memory

GROUPS = 5  # groups of steps are timed; the median of the groups counts


@dataclass(frozen=True)
class Timed:
    """A compiled program: FLOPs of its trace, seconds to compile, seconds a call, bytes."""

    flops: int
    compile_s: float
    call_s: float
    bytes: dict[str, int]

    def line(self, name: str, images: int) -> str:
        """A line for people. images: how many one call makes or learns from."""
        return (
            f"  {name:<18} {self.call_s * 1e3:,.1f} ms, {images / self.call_s:,.2f} images/s, "
            f"{self.flops / self.call_s / 1e9:,.1f} GFLOP/s of {self.flops / 1e9:,.2f} GFLOP, "
            f"compiled in {self.compile_s:.1f} s, {format_memory(self.bytes['peak'])} by XLA"
        )


def parser(doc: str) -> argparse.ArgumentParser:
    """The flags of both scripts; other arguments are overrides, as in `diffjax.main`."""
    flags = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    flags.add_argument(
        "--config", action="append", default=[], help="FILE:PRESET, may be given many times"
    )
    flags.add_argument("--batch", type=int, help="pictures per step, over all devices")
    flags.add_argument("--steps", type=int, default=10, help="calls that are timed")
    flags.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the network")
    return flags


def options_of(spec: str, flags: argparse.Namespace, overrides: list[str]) -> ConfigDict:
    """The config of "path/to/file.py:preset" with the flags and overrides applied.

    Raises:
      ConfigError: there is no such config, or it is not valid.
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
    """Compiles and times a jitted function.

    call: (compiled, arguments) -> the arguments of the next call, for a step that overwrites its
    state; by default the arguments stay the same. As in training, calls are queued; the end of the
    queue is waited for once per group.
    """
    start = time.perf_counter()
    traced = jitted.trace(*arguments)
    compiled = traced.lower().compile()
    compile_s = time.perf_counter() - start
    forget_peak()  # the compiler's memory does not count
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
    """The FLOP/s as a share of the devices' bfloat16 peak; "" if `chips` does not know them."""
    chip = chips.chip_of(jax.devices()[0].device_kind)
    if chip is None:
        return ""
    share = flops / seconds / (chip.peak_flops * devices)
    return f", MFU {share:.1%} of {chip.name}'s bfloat16 peak"


def start() -> None:
    """Prints the devices, and turns off the cache of programs, which would hide compile times."""
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"jax {jax.__version__}, {jax.device_count()} x {jax.devices()[0].device_kind}")


def held() -> str:
    """The peak of memory: the device's if it counts it, else the process's since compiling."""
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    size = format_memory(peak or peak_bytes())
    return f"{size} held at most by {'a device' if peak else 'the process'}"
