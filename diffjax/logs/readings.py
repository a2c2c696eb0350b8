"""The metrics of the last steps, kept on the device until a line of the log is written."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Readings(NamedTuple):
    """The metrics of the last steps, a row each, columns in the order of their names."""

    rows: Float[Array, "steps metrics"]
    written: Int[Array, ""]


def no_readings(num_steps: int, metrics: Mapping[str, Array | jax.ShapeDtypeStruct]) -> Readings:
    """Room for the metrics (or their shapes) of so many steps."""
    return Readings(jnp.zeros((num_steps, len(metrics))), jnp.zeros((), jnp.int32))


def record(readings: Readings, metrics: Mapping[str, Array]) -> Readings:
    """The readings with a step's metrics written over the oldest row, columns by name."""
    rows, written = readings
    row = jnp.stack([metrics[name] for name in sorted(metrics)])
    return Readings(rows.at[written].set(row), (written + 1) % rows.shape[0])
