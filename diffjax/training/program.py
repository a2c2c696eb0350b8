"""What is compiled to train a stage: the step and its readings, with where their arrays lie."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
from ml_collections import ConfigDict

from diffjax.build import build, config
from diffjax.devices import mesh
from diffjax.tasks.denoising import Stage
from diffjax.training import step


@dataclass(frozen=True)
class Program:
    """The compiled functions of a config; train_step gives its state's memory back to the next.

    train_step: (state, batch) -> (state, metrics). no_readings: metrics -> readings, empty.
    record: (readings, metrics) -> readings. all_finite: state -> whether it may be saved.
    """

    stage: Stage
    place: build.Placement
    batch_sharding: jax.sharding.NamedSharding
    train_step: Any
    no_readings: Any
    record: Any
    all_finite: Any


# When the loop saves and stops is nothing to what is compiled.
OF_THE_LOOP = tuple(
    f"train.{name}"
    for name in ("save_every", "sample_every", "snapshot_every", "keep", "keep_every",
                 "max_seconds", "max_bad_steps")
)  # fmt: skip

_made: dict[tuple, Program] = {}


def program_of(options: ConfigDict, text_width: int, devices: list | None = None) -> Program:
    """The program of a config, for all devices unless some are named.

    Configs that are equal but for OF_THE_LOOP share one, so that a run that goes on in the same
    process traces and compiles nothing again.
    """
    compiled = tuple(leaf for leaf in config.leaves(options) if leaf[0] not in OF_THE_LOOP)
    key = (compiled, text_width, None if devices is None else tuple(devices))
    if key not in _made:
        _made[key] = _program(options, text_width, devices)
    return _made[key]


def _program(options: ConfigDict, text_width: int, devices: list | None) -> Program:
    stage = build.stage_of(options, text_width)
    tx, rate = build.optimiser_of(options)
    place = build.placement_of(options, stage, tx, devices)
    batch_sharding = mesh.batch_sharding(place.mesh)
    everywhere = mesh.replicated(place.mesh)
    return Program(
        stage,
        place,
        batch_sharding,
        train_step=jax.jit(
            build.train_step_of(options, stage, tx, place, rate),
            in_shardings=(place.state_sharding, batch_sharding),
            out_shardings=(place.state_sharding, everywhere),
            donate_argnums=0,
        ),
        no_readings=jax.jit(
            functools.partial(step.no_readings, options.train.log_every), out_shardings=everywhere
        ),
        record=jax.jit(step.record, donate_argnums=0),
        all_finite=jax.jit(step.all_finite, out_shardings=everywhere),
    )
