"""Makes from a config everything that the training loop needs."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from diffjax.build import evaluation, tasks
from diffjax.build.check import check
from diffjax.build.inputs import clip_columns, data, moments, reading, texts
from diffjax.build.inputs.embeddings import meet
from diffjax.build.kinds import autoregressive, distilling, latents, lora, rehearsing
from diffjax.build.options import resume
from diffjax.build.stages import bases, start
from diffjax.build.stages.places import sampled_average
from diffjax.checkpoint.portable import FROZEN
from diffjax.core.errors import ConfigError
from diffjax.devices import mesh as mesh_lib
from diffjax.devices import processes
from diffjax.encoders.t5 import TextEncoder
from diffjax.tasks.distilling import Distilled
from diffjax.tasks.lora import Adapted
from diffjax.tasks.task import Task
from diffjax.training import optim
from diffjax.training.program import Training
from diffjax.training.run import Data, Evaluate, LoopSettings, Run


def run_of(config: ConfigDict, workdir: Path) -> Run:
    """The description of a run of one stage; nothing large is opened yet.

    A new run of latents first measures them, which may encode all pictures.

    Raises:
      ConfigError: the config is not valid, or cannot continue the run of the workdir.
      StorageError: the disk has no room for latents.
    """
    check(config)
    config = bases.as_begun(latents.begun(config, workdir), workdir)
    config = autoregressive.begun(clip_columns.marked(config, workdir), workdir)
    changes = resume.allowed_changes(config, workdir)
    if changes:
        print(
            f"changed since this run was last started:\n{resume.change_table(changes)}", flush=True
        )
    start.check(config, workdir)
    encoder = texts.encoder_of(config) if "text" in config else None
    if latents.SECTION in config:
        config = moments.measured(config, functools.partial(reading.source_of, config))
        if processes.is_first():
            latents.keep(config, workdir)
    if autoregressive.is_one(config):
        config = with_basis(config, workdir)
    training = training_of(config, encoder.width if encoder else 0)
    if isinstance(training.task, Adapted):
        config = bases.with_checkpoint(config, lora.SECTION, training.task.checkpoint)
    if isinstance(training.task, Distilled):
        config = bases.with_checkpoint(config, distilling.SECTION, training.task.checkpoint)
    begins = bool(start.base_of(config))
    return Run(
        training=training,
        loop=loop_of(config),
        workdir=workdir,
        config_json=json.dumps(config.to_dict(), indent=2),
        sampled=sampled_average(config),
        open_data=functools.partial(open_data, config, encoder, training, workdir),
        start=functools.partial(start.params_of, config, training.task) if begins else None,
    )


def with_basis(config: ConfigDict, workdir: Path) -> ConfigDict:
    """The config of an autoregressive prior with its basis, which a new run measures on its data.

    All processes make the columns, the first one writes the basis, and the others wait for it.
    Raises what `run_of` does.
    """
    if (workdir / FROZEN).exists():
        return autoregressive.keep(config, workdir, None)
    records = reading.source_of(config)
    vector_of = clip_columns.of_captions(config, records)
    assert vector_of is not None
    measure = functools.partial(autoregressive.measured, config, records, vector_of)
    if not processes.is_first():
        meet()
    new = autoregressive.keep(config, workdir, measure if processes.is_first() else None)
    if processes.is_first():
        meet()
    return new


def open_data(
    config: ConfigDict, encoder: TextEncoder | None, training: Training, workdir: Path
) -> Data:
    """The data of a run, and the evaluator that runs during training.

    Raises:
      ConfigError, StorageError: see `data.open_data` and `evaluation.during_training`.
    """
    evaluate: Evaluate | None = None
    if config.train.evaluate_every:
        evaluate = evaluation.during_training(config, encoder, training.task, training.mesh)
    return data.open_data(config, encoder, training, workdir)._replace(evaluate=evaluate)


def training_of(
    config: ConfigDict, text_width: int, devices: Sequence[jax.Device] | None = None
) -> Training:
    """What is compiled to train a stage, for all devices or for the given ones."""
    tx, rate = optimiser_of(config)
    try:
        mesh = mesh_lib.make_mesh(**config.mesh, devices=devices)
    except ValueError as error:
        raise ConfigError("mesh", dict(config.mesh), str(error)) from None
    return Training(
        task=task_of(config, text_width),
        tx=tx,
        rate=rate,
        averages=tuple(config.train.ema),
        mesh=mesh,
        seed=config.seed,
        batch_size=config.data.batch_size,
        parts=config.train.accumulate,
        log_every=config.train.log_every,
    )


def task_of(config: ConfigDict, text_width: int) -> Task:
    """The task that is trained, with what it begins from: a LoRA's base, a student's teacher."""
    task = tasks.trained_task_of(config, text_width)
    return rehearsing.rehearsed(config, distilling.distilled(config, lora.adapted(config, task)))


def loop_of(config: ConfigDict) -> LoopSettings:
    """The settings of when the loop logs, saves, samples, evaluates and stops."""
    names = [
        field.name for field in dataclasses.fields(LoopSettings) if field.name != "learning_rate"
    ]
    given = {name: config.train[name] for name in names if name in config.train}
    return LoopSettings(**given, learning_rate=config.optim.learning_rate)


def optimiser_of(config: ConfigDict) -> tuple[optim.Optimiser, optim.Rate]:
    """The optimiser, and its learning rate as a function of the step."""
    options = config.optim
    rate = optim.learning_rate(
        options.learning_rate,
        warmup_steps=options.warmup_steps,
        num_steps=config.train.num_steps,
        decay=options.decay,
    )
    names = ("b1", "b2", "eps", "weight_decay", "clip_norm")
    groups = tuple(map(optim.parse_group, options.groups))
    own = {name: options[name] for name in names}
    return optim.optimiser(options.name, rate, **own, groups=groups), rate
