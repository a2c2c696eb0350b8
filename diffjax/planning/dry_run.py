"""What a run would do, without doing it: shapes, tables, a batch, sizes, FLOPs; nothing is written.

Shapes go in where arrays would, so that a network of any size is shown by any machine. Memory is
an estimate; `--mode=compile` asks the compiler.
"""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from diffjax.build import build
from diffjax.build.embeddings import embeddings_of, encoded
from diffjax.core import trees
from diffjax.core.errors import BadData, ConfigError
from diffjax.data import examples, pipeline, readers
from diffjax.data.record import RecordSource
from diffjax.devices import chips, mesh
from diffjax.devices.topology import devices_of
from diffjax.encoders.t5 import TextEncoder
from diffjax.planning import hlo, liveness, memory, plan, shapes
from diffjax.planning.memory import of_size

SHOWN_EXAMPLES, SHOWN_CAPTIONS = 16, 4
SLACK = 2.4  # XLA took 1.7 to 2.4 times the estimate for the networks and TPUs of docs/scale.md


def parts(options: ConfigDict, workdir: Path | None = None, topology: str = "") -> Iterator[str]:
    """The report of one stage in parts, each as soon as it is known; first what costs least.

    topology: TPUs to take for the devices, as "v5e:16x16"; those at hand if "".

    Raises:
      ConfigError: what a run would refuse: bad config, no such data, encoder or embeddings.
    """
    devices = devices_of(topology)
    plan.check(options, len(devices))
    work = shapes.training(options, devices)
    yield heading(options, work, devices)
    state, sharding = work.place.state_shape, work.place.state_sharding
    yield f"parameters and where they lie:\n{mesh.state_table(sharding, state)}"
    yield costs(options, work, devices[0])
    yield disk(options, state, workdir)
    records, encoder = build.source_of(options), build.encoder_of(options)
    yield batch_table(options, records, encoder)


def heading(options: ConfigDict, work: shapes.Work, devices: list[Any]) -> str:
    """The devices, and every array that goes into a step."""
    mesh = " x ".join(f"{name} {size}" for name, size in work.mesh.shape.items())
    lines = [
        f"dry run of {options.stage}: {len(devices)} x {devices[0].device_kind}, mesh {mesh}",
        f"a step takes {work.batch} examples, {work.rows} at a time on a device, in "
        f"{options.train.accumulate} part(s); {options.train.num_steps:,} steps",
    ]
    for name, leaf in work.arguments[1].items():
        lines.append(f"  {name:<12} {leaf.dtype} {leaf.shape}, {_split(leaf)} on a device")
    return "\n".join(lines)


def _split(leaf: Any) -> str:
    return str(leaf.sharding.shard_shape(leaf.shape))


def costs(options: ConfigDict, work: shapes.Work, device: Any) -> str:
    """FLOPs of a step, and what its arrays take on a device."""
    products = list(hlo.products(work.one_device))
    per_image = sum(product.flops for product in products) / work.rows
    state = _on_a_device(work.arguments[0])
    batch = _on_a_device(work.arguments[1])
    program = work.jitted.trace(*work.arguments).jaxpr
    rest = liveness.peak(liveness.on_a_device(program))
    chip = chips.chip_of(device.device_kind)
    limit = memory.limit(device, chip)
    of_limit = f" of {of_size(limit)}" if limit else ""
    lines = [
        f"{trees.count(work.params):,} parameters",
        f"FLOPs: {per_image:.3g} an image, {per_image * work.batch:.3g} a step",
        f"memory of a device: state {of_size(state)}, batch {of_size(batch)}, activations and "
        f"gradients {of_size(rest)} to {of_size(SLACK * rest)}; together "
        f"{of_size(state + batch + rest)} to {of_size(state + batch + SLACK * rest)}{of_limit} "
        "(an estimate; --mode=compile asks the compiler)",
    ]
    if chip is not None:
        step_s = per_image * work.batch / work.mesh.size / chip.peak_flops
        lines.append(f"at best {step_s:.3g} s a step, by arithmetic alone")
    return "\n".join(lines)


def _on_a_device(tree: Any) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def disk(options: ConfigDict, state: Any, workdir: Path | None) -> str:
    """Bytes of a checkpoint, of those kept, and what the disk has."""
    one = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
    kept = (options.train.keep + 1) * one  # the oldest goes when the newest is there
    line = f"a checkpoint: {of_size(one)}; up to {of_size(kept)} on the disk"
    if workdir is None:
        return line
    there = next(path for path in (workdir, *workdir.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free
    verdict = "enough" if free > kept else "TOO LITTLE: make room or lower train.keep"
    return f"{line}, of which {of_size(free)} are free at {there}: {verdict}"


def batch_table(options: ConfigDict, records: RecordSource, encoder: TextEncoder) -> str:
    """The first batch of the run, its captions encoded or found in the cache the config names."""
    batch_size = options.data.batch_size
    iterator = pipeline.train_iterator(
        records,
        readers.captioned_pictures(
            size_px=options.data.size_px, crop_px=options.data.crop_px or None
        ),
        batch_size=batch_size,
        seed=options.seed,
        rows=range(min(batch_size, SHOWN_EXAMPLES)),
        max_broken=build.max_broken_of(options),
        threads=0,
    )
    try:
        batch = dict(next(iterator))
        captions = [str(caption) for caption in batch.pop("caption")]
        named = options.data.get("embeddings", "")
        embed: readers.Embed = (
            embeddings_of(options, records, encoder).embed if named else encoded(encoder, captions)
        )
        text = readers.text(embed, encoder.max_length)
        rows = [examples.Example(text({"captions": (c,)}, None), ()) for c in captions]
    except BadData as error:
        raise ConfigError("data", f"{options.data.name} {options.data.split}", str(error)) from None
    finally:
        iterator.close()
    batch |= examples.collate(rows).columns
    lines = [
        f"{len(records):,} records, {pipeline.steps_per_epoch(records, batch_size):,} steps an "
        f"epoch; the first {len(captions)} examples of the first batch:"
    ]
    for name, values in batch.items():
        numbers = np.asarray(values, np.float64) if values.dtype.kind not in "iu" else values
        lines.append(
            f"  {name:<12} {values.dtype} {values.shape}, from {numbers.min():.4g} to "
            f"{numbers.max():.4g}, mean {numbers.mean():.4g}"
        )
    return "\n".join([*lines, *(f"  caption      {c!r}" for c in captions[:SHOWN_CAPTIONS])])
