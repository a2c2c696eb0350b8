"""What a training run works with: everything opened, and the state that it begins with."""

import functools
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from diffjax import checkpoint
from diffjax.build import build, config
from diffjax.build.embeddings import embeddings_of
from diffjax.checkpoint.workdir import check_space
from diffjax.core.errors import ConfigError
from diffjax.core.signals import Watch
from diffjax.data import pipeline
from diffjax.devices import mesh, processes
from diffjax.logs import writer
from diffjax.logs.goodput import Goodput
from diffjax.logs.journal import Journal
from diffjax.training import snapshots
from diffjax.training.preview import Preview
from diffjax.training.program import Program, program_of


@dataclass(frozen=True)
class Run:
    """What the loop works with, made once. batches: already on their way to the devices."""

    options: ConfigDict
    workdir: Path
    program: Program
    first_step: int
    batches: pipeline.Ahead
    checkpoints: checkpoint.Checkpoints
    snapshots: snapshots.Snapshots
    log: writer.Log
    journal: Journal
    preview: Preview
    watch: Watch
    spent: Goodput


def begin(
    options: ConfigDict, workdir: Path, watch: Watch, at_the_end: ExitStack
) -> tuple[Run, Any]:
    """Open everything, and make the first state or restore the newest one.

    What must be closed is left to `at_the_end`. Raises what `loop.train` does.
    """
    first = processes.is_first()
    spent = Goodput(workdir / "goodput.json" if first else None)
    records, encoder = build.source_of(options), build.encoder_of(options)
    embeddings = embeddings_of(options, records, encoder, _encoding_progress)
    program = program_of(options, encoder.width)
    place = program.place
    check_space(workdir, checkpoint.needed_bytes(place.state_shape))
    if first:
        config.save(options, workdir / "config.json")
    batches = build.train_iterator_of(options, records, embeddings)
    at_the_end.callback(spent.note)
    checkpoints = checkpoint.open_dir(
        workdir / "checkpoints", keep=options.train.keep, keep_every=options.train.keep_every
    )
    at_the_end.callback(checkpoint.finish, checkpoints)
    try:
        state, position = checkpoint.restore(checkpoints, place.state_shape)
    except FileNotFoundError:
        state, position = place.init(jax.random.key(options.seed)), {}
    except ValueError as error:
        raise ConfigError("workdir", str(workdir), str(error)) from None
    step = int(mesh.fetch(state.step))
    if position:
        batches.set_state(position.get("data", position))  # older runs saved the data's alone
        print(f"resuming from step {step} in {workdir}", flush=True)
    spent.resume(step)
    kept = snapshots.Snapshots(workdir, options.train.ema, step)
    at_the_end.callback(kept.finish)
    log = writer.Log(workdir, enabled=first, resumed_at=step)
    at_the_end.callback(log.close)
    if step == 0:
        parameters = writer.parameter_table(state.params)
        print(parameters, flush=True)
        log.text("parameters", f"```\n{parameters}\n```")
    if place.mesh.size > 1:
        print(mesh.state_table(place.state_sharding, place.state_shape), flush=True)
    journal = Journal(
        log, spent,
        no_readings=program.no_readings, record=program.record,
        images_per_step=options.data.batch_size, saved=position.get("log"),
    )  # fmt: skip
    to_devices = functools.partial(mesh.to_devices, sharding=program.batch_sharding)
    run = Run(
        options, workdir, program, step, pipeline.Ahead(batches, to_devices), checkpoints,
        kept, log, journal, Preview(options, program, records, embeddings, workdir, log), watch,
        spent,
    )  # fmt: skip
    return run, state


def _encoding_progress(done: int, total: int) -> None:
    if done == total or done % 2048 < 64:
        print(f"text embeddings: {done} of {total} captions", flush=True)
