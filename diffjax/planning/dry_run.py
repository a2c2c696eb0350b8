"""Reports what a training run would do: shapes, parameters, a batch, FLOPs, sizes.

Nothing is trained or written. The programs get shapes in place of arrays, so that any machine can
report on a network of any size. Memory is an estimate; `--mode=compile` asks the compiler.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax

from diffjax.core import trees
from diffjax.core.tables import format_memory
from diffjax.devices import chips, mesh
from diffjax.planning import jaxprs, liveness, memory, shapes
from diffjax.tasks.task import networks_of
from diffjax.training.program import Training, program_of
from diffjax.training.run import LoopSettings

SLACK = 2.4  # XLA took 1.7 to 2.4 times the estimate for the networks and TPUs of docs/scale.md


def parts(
    training: Training, loop: LoopSettings, workdir: Path | None, data: Callable[[], str]
) -> Iterator[str]:
    """Yields the report of one task in parts, each as soon as it is known, the cheapest first.

    data: opens the data set and describes the first batch; called last.

    Raises:
      ConfigError: a run would be refused, for example because the data set does not exist.
    """
    work = shapes.training(training)
    devices = list(work.mesh.devices.flat)
    yield heading(training, loop, work, devices)
    place = program_of(training).place
    yield (
        "parameters and where they lie:\n"
        f"{mesh.state_table(place.state_sharding, place.state_shape)}"
    )
    yield costs(work, devices[0], networks_of(training.task))
    yield disk(loop.keep, place.state_shape, workdir)
    yield data()


def heading(
    training: Training, loop: LoopSettings, work: shapes.Work, devices: Sequence[jax.Device]
) -> str:
    """The devices, and the shape of every column that a step takes."""
    mesh = " x ".join(f"{name} {size}" for name, size in work.mesh.shape.items())
    lines = [
        f"dry run of {training.task.name}: {len(devices)} x {devices[0].device_kind}, mesh {mesh}",
        f"a step takes {work.batch} examples, {work.rows} at a time on a device, in "
        f"{training.parts} part(s); {loop.num_steps:,} steps",
    ]
    for name, leaf in work.arguments[1].items():
        lines.append(f"  {name:<12} {leaf.dtype} {leaf.shape}, {_split(leaf)} on a device")
    return "\n".join(lines)


def _split(leaf: jax.ShapeDtypeStruct) -> str:
    return str(leaf.sharding.shard_shape(leaf.shape))


def costs(work: shapes.Work, device: jax.Device, networks: Sequence[str] = ()) -> str:
    """FLOPs of a step, and the memory that its arrays take on a device.

    networks: names of parts of the parameters that are counted by themselves too.
    """
    products = list(jaxprs.products(work.one_device))
    per_image = sum(product.flops for product in products) / work.rows
    state = _on_a_device(work.arguments[0])
    batch = _on_a_device(work.arguments[1])
    frozen = [task.frozen for task in work.arguments[2:]]
    used = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(frozen))
    program = work.trace().jaxpr
    rest = liveness.peak(liveness.on_a_device(program))
    chip = chips.chip_of(device.device_kind)
    limit = memory.usable_bytes(device, chip)
    of_limit = f" of {format_memory(limit)}" if limit else ""
    lines = [
        f"{trees.num_values(work.params):,} parameters",
        *(f"  {trees.num_values(work.params[name]):,} in the {name}" for name in networks),
        *([f"{trees.num_values(frozen):,} frozen parameters"] if used else []),
        f"FLOPs: {per_image:.3g} an image, {per_image * work.batch:.3g} a step",
        f"memory of a device: state {format_memory(state)}, batch {format_memory(batch)}, "
        f"{f'frozen weights {format_memory(used)}, ' if used else ''}"
        f"activations and gradients {format_memory(rest)} to {format_memory(SLACK * rest)}; "
        f"together {format_memory(state + batch + used + rest)} to "
        f"{format_memory(state + batch + used + SLACK * rest)}{of_limit} "
        "(an estimate; --mode=compile asks the compiler)",
    ]
    if chip is not None:
        step_s = per_image * work.batch / work.mesh.size / chip.peak_flops
        lines.append(f"at best {step_s:.3g} s a step, by arithmetic alone")
    return "\n".join(lines)


def _on_a_device(tree: shapes.Shapes) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def disk(keep: int, state: shapes.Shapes, workdir: Path | None) -> str:
    """Bytes of one checkpoint and of those that are kept, and whether the disk has room."""
    one = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
    kept = (keep + 1) * one  # the oldest is deleted only after the newest is complete
    line = f"a checkpoint: {format_memory(one)}; up to {format_memory(kept)} on the disk"
    if workdir is None:
        return line
    there = next(path for path in (workdir, *workdir.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free
    verdict = "enough" if free > kept else "TOO LITTLE: make room or lower train.keep"
    return f"{line}, of which {format_memory(free)} are free at {there}: {verdict}"
