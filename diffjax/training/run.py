"""Opens everything that a training run needs, and makes or restores its first state."""

import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

import jax
import numpy as np

from diffjax import checkpoint
from diffjax.checkpoint.workdir import check_space
from diffjax.core.errors import ConfigError, StorageError
from diffjax.core.files import read_json, set_aside, write_whole
from diffjax.core.signals import Watch
from diffjax.data import pipeline
from diffjax.data.broken import Broken
from diffjax.devices import mesh, processes
from diffjax.logs import writer
from diffjax.logs.goodput import Goodput
from diffjax.logs.journal import Journal
from diffjax.tasks.task import Guessable, Params
from diffjax.training import snapshots
from diffjax.training.preview import Preview
from diffjax.training.program import Program, Training, program_of, started
from diffjax.training.state import TrainState

# Parameters -> numbers by name, on held-out examples. With several processes all must call it.
Evaluate: TypeAlias = Callable[[Params], Mapping[str, float]]


@dataclass(frozen=True)
class LoopSettings:
    """When the loop logs, saves, samples, evaluates and stops, in steps; 0 means never.

    These settings do not change the compiled program. learning_rate: only for the message of a run
    that diverges.
    """

    num_steps: int
    log_every: int = 50
    sample_every: int = 0
    evaluate_every: int = 0
    save_every: int = 0
    snapshot_every: int = 0
    keep: int = 3
    keep_every: int = 0
    max_bad_steps: int = 10
    max_seconds: float = 0.0
    learning_rate: float = 0.0


class Shown(NamedTuple):
    """What a preview shows: columns with a row per picture, and the caption of each."""

    batch: Mapping[str, np.ndarray]
    captions: tuple[str, ...]


class Data(NamedTuple):
    """The data of a run: batches, whose position can be saved and restored, and the previews.

    evaluate: evaluates the parameters during training, see `Evaluate`; None for no evaluation.
    broken: the records that are left out, as far as is known; None where nobody counts them.
    """

    batches: pipeline.Batches
    shown: Shown
    evaluate: Evaluate | None = None
    broken: Broken | None = None


@dataclass(frozen=True)
class Run:
    """The description of a run of one task, made before anything large is opened.

    config_json: written into the workdir. sampled: the average that previews are made with.
    open_data: opens the data set, and first computes the columns that it lacks. start: reads the
    weights that a new run begins with; None for the initial ones of its task.
    """

    training: Training
    loop: LoopSettings
    workdir: Path
    config_json: str
    sampled: str
    open_data: Callable[[], Data]
    start: Callable[[], Params] | None = None

    @property
    def name(self) -> str:
        """The name of the task."""
        return self.training.task.name


@dataclass(frozen=True)
class Opened:
    """The open objects of a run. batches: they are sent to the devices ahead of time."""

    run: Run
    program: Program
    first_step: int
    batches: pipeline.Ahead
    checkpoints: checkpoint.Checkpoints
    snapshots: snapshots.Snapshots
    log: writer.Log
    journal: Journal
    preview: Preview
    evaluate: Evaluate | None
    watch: Watch
    spent: Goodput


def begin(
    run: Run, watch: Watch, at_the_end: ExitStack, fence: Callable[[], None] = lambda: None
) -> tuple[Opened, TrainState]:
    """Opens everything, and makes the first state or restores the newest checkpoint.

    `at_the_end` will close what must be closed. fence: see `Checkpoints`. Raises the same errors as
    `loop.train`.
    """
    first, workdir, training = processes.is_first(), run.workdir, run.training
    spent = Goodput(workdir / "goodput.json" if first else None)
    data = run.open_data()
    try:
        program = program_of(training)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError("mesh", dict(training.mesh.shape), str(error)) from None
    place = program.place
    check_space(workdir, checkpoint.needed_bytes(place.state_shape))
    if first:
        _write_config(workdir / "config.json", f"{run.config_json}\n")
    at_the_end.callback(spent.note)
    checkpoints = checkpoint.open_dir(
        workdir / "checkpoints",
        keep=run.loop.keep,
        keep_every=run.loop.keep_every,
        config=f"{run.config_json}\n",
        fence=fence,
    )
    at_the_end.callback(checkpoint.finish, checkpoints)
    try:
        state, position = checkpoint.restore(checkpoints, place.state_shape)
    except FileNotFoundError:
        state, position = place.init(jax.random.key(training.seed)), {}
        state = state if run.start is None else started(state, place, run.start())
    except ValueError as error:
        raise ConfigError("workdir", str(workdir), str(error)) from None
    step = int(mesh.to_host(state.step))
    if position:
        data.batches.set_state(position["data"])
        print(f"resuming from step {step} in {workdir}", flush=True)
    if data.broken is not None:
        at_the_end.callback(_say_left_out, data.broken)
    spent.resume(step)
    kept = snapshots.Snapshots(workdir, training.averages, step)
    at_the_end.callback(kept.finish)
    log = writer.Log(workdir, enabled=first, resumed_at=step)
    at_the_end.callback(log.close)
    if step == 0:
        parameters = writer.parameter_table(state.params)
        print(parameters, flush=True)
        log.text("parameters", f"```\n{parameters}\n```")
    if place.mesh.size > 1:
        print(mesh.state_table(place.state_sharding, place.state_shape), flush=True)
    task = mesh.everywhere(training.task, place.mesh)  # so that no step sends frozen weights again
    training = replace(training, task=task)
    run = replace(run, training=training)
    journal = Journal(
        log, spent,
        no_readings=program.no_readings, record=program.record,
        images_per_step=training.batch_size, saved=position.get("log"),
        chance=chance_of(training),
    )  # fmt: skip
    to_devices = functools.partial(mesh.to_devices, sharding=program.batch_sharding)
    preview = Preview(training.task, place.mesh, data.shown, workdir / "samples", log)
    opened = Opened(
        run, program, step, pipeline.Ahead(data.batches, to_devices), checkpoints, kept, log,
        journal, preview, data.evaluate, watch, spent,
    )  # fmt: skip
    return opened, state


def _write_config(path: Path, text: str) -> None:
    """Write the run's config. A damaged one that lies there is set aside."""
    try:
        damaged = not isinstance(read_json(path, "").get("stage"), str)
        why = "not the config of a run"
    except FileNotFoundError:
        damaged = False
    except StorageError as error:
        damaged, why = True, str(error).removeprefix(f"{path}: ").removesuffix("; ")
    if damaged:
        set_aside(path, f"{why}; written anew")
    write_whole(path, text.encode())


def chance_of(training: Training) -> float | None:
    """The loss of guessing, if the task knows it."""
    task = training.task
    return task.loss_by_chance(training.batch_size) if isinstance(task, Guessable) else None


def _say_left_out(broken: Broken) -> None:
    if said := broken.summary():
        print(said, flush=True)
