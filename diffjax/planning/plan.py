"""Compiles the step of a stage ahead of time and reports whether it fits and how fast it could be.

The devices are those of this machine, or TPUs that are not here. Nothing runs and no array is
made: the compiler gets shapes and shardings, and the figures are XLA's own.
"""

import dataclasses
import json
import resource
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata

import jax

from diffjax.core import trees
from diffjax.core.tables import format_memory, format_quantity
from diffjax.devices import chips
from diffjax.planning import hlo, jaxprs, memory, shapes

MFU = 0.35  # the share of the peak that well-tuned training of such networks reaches


@dataclass(frozen=True)
class Plan:
    """What a compiled step needs and could do. Bytes are of one device, FLOPs of one image."""

    stage: str
    # "train"; "sample": all network calls of a picture; "encode": its images are captions
    step: str
    device: str
    topology: str
    devices: int
    mesh: dict[str, int]
    batch: int
    parameters: int
    model_flops: float  # what the mathematics needs: nothing is computed twice
    program_flops: float  # what the compiled program does
    bytes: dict[str, int]
    limit_bytes: float | None
    collectives: dict[str, dict[str, int]]
    host_transfers: int
    stablehlo_lines: int
    compile_s: float  # from shapes to a program: tracing, lowering, XLA
    compile_cpu_s: float  # CPU seconds of all threads, which a busy machine does not change
    host_peak_bytes: int
    images_per_second: dict[str, float]  # of all devices together; {} if the chip is not known
    versions: dict[str, str]


class TooBig(Exception):
    """The step does not fit; the message says by how much, and names the largest buffers."""


def plan(work: shapes.Work, name: str, step: str, topology: str = "") -> Plan:
    """Compiles the work for its devices and collects what XLA says of it.

    name: of the stage. step: "train", "sample" or "encode". topology: of the TPUs, "" for the
    devices of this machine.

    Raises:
      TooBig: the step does not fit into a device's memory.
    """
    devices = list(work.mesh.devices.flat)
    chip = chips.chip_of(devices[0].device_kind)
    limit = memory.usable_bytes(devices[0], chip)

    start, cpu_start = time.perf_counter(), time.process_time()
    traced = work.trace()
    lowered = traced.lower()
    compiled = _compile(lowered, topology)
    compile_s, compile_cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
    sizes = memory.bytes_by_kind(compiled)
    if limit is not None and sizes["peak"] > limit:
        raise TooBig(memory.too_big(sizes["peak"], limit, memory.largest_buffers(lowered)))
    text = compiled.as_text() or ""
    products = list(jaxprs.products(work.one_device))
    speeds = {}
    if chip is not None:
        per_row = {k: s / work.rows for k, s in chips.least_seconds(chip, products).items()}
        state_s = 2 * sizes["alias"] / chip.bandwidth  # the state is read once and written once
        share = work.batch / len(devices)
        speeds = {k: work.batch / (share * s + state_s) for k, s in per_row.items()}
        speeds["compute"] = len(devices) / per_row["compute"]
        speeds["at_35_percent_mfu"] = MFU * speeds["compute"]
    return Plan(
        stage=name,
        step=step,
        device=devices[0].device_kind,
        topology=topology,
        devices=len(devices),
        mesh=dict(work.mesh.shape),
        batch=work.batch,
        parameters=trees.num_values(work.params),
        model_flops=sum(product.flops for product in products) / work.rows,
        program_flops=jaxprs.flops(traced.jaxpr) / work.batch,
        bytes=sizes,
        limit_bytes=limit,
        collectives={k: dataclasses.asdict(v) for k, v in hlo.collectives(text).items()},
        host_transfers=hlo.host_transfers(text),
        stablehlo_lines=hlo.stablehlo_lines(lowered),
        compile_s=compile_s,
        compile_cpu_s=compile_cpu_s,
        host_peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        images_per_second=speeds,
        versions=versions(topology),
    )


def versions(topology: str) -> dict[str, str]:
    """The versions of the packages that made the plan, and JAX's level of optimisation."""
    names = ["jax", "jaxlib", "flax", "diffjax", *(["libtpu"] if topology else [])]
    found = {name: metadata.version(name) for name in names}
    level = str(jax.config.values["jax_optimization_level"])
    return found | {"optimization_level": level.rpartition(".")[2]}


def _compile(lowered: jax.stages.Lowered, topology: str) -> jax.stages.Compiled:
    """Compiles a program. For TPUs the compiler itself checks that it fits.

    Raises:
      TooBig: it does not fit into a TPU; the message names the largest buffers.
    """
    if not topology:
        return lowered.compile()
    with tempfile.TemporaryDirectory() as folder:
        try:
            return lowered.compile(compiler_options=memory.dump_options(folder))
        except jax.errors.JaxRuntimeError as error:
            needed = memory.parse_out_of_memory(str(error))
            if needed is None:
                raise
            raise TooBig(memory.too_big(*needed, memory.dumped_buffers(folder))) from None


def rounded(number: float) -> str:
    """A number with at least three digits and no exponent: "12,345", "678", "9.01"."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def report(made: Plan) -> str:
    """The plan as a few lines for people, and a last line of JSON for programs."""
    place = f"{made.devices} x {made.device}" + (f" ({made.topology})" if made.topology else "")
    mesh = " x ".join(f"{name} {size}" for name, size in made.mesh.items())
    limit = f" of {format_memory(made.limit_bytes)}" if made.limit_bytes else ""
    kinds = [f"{name} {format_memory(size)}" for name, size in made.bytes.items() if name != "peak"]
    crossing = [
        f"{kind} {one['count']} ({format_memory(one['bytes'])})"
        for kind, one in made.collectives.items()
    ]
    flops, again = format_quantity(made.model_flops), made.program_flops / made.model_flops
    rows = {
        "parameters": f"{made.parameters:,}",
        "FLOPs per image": f"{flops}FLOP; the program's are {again:.3f} x that",
        "bytes per device": ", ".join(kinds),
        "peak": f"{format_memory(made.bytes['peak'])}{limit}",
        "collectives": ", ".join(crossing) or "none",
        "host transfers": f"{made.host_transfers}",
    }
    if made.images_per_second:
        speeds = {name: rounded(speed) for name, speed in made.images_per_second.items()}
        rows["images/s"] = (
            f"{speeds['at_35_percent_mfu']} at 35 % MFU; at most {speeds['compute']} by arithmetic,"
            f" {speeds['memory']} by memory, {speeds['roofline']} by the slower for each operation"
        )
    rows["compiled in"] = (
        f"{made.compile_s:.1f} s ({made.compile_cpu_s:.1f} s of CPU) with "
        f"{format_memory(made.host_peak_bytes)} of host memory, from "
        f"{made.stablehlo_lines:,} lines of StableHLO"
    )
    lines = [f"{made.stage} {made.step}: {place}, mesh {mesh}, batch {made.batch}"]
    lines += [f"  {name:<16} {value}" for name, value in rows.items()]
    return "\n".join([*lines, json.dumps(dataclasses.asdict(made))])
