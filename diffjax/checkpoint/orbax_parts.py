"""What orbax is told: how the parts of a step are written, and which clock its deadlines have.

orbax takes as long to import as half of jax, so only the functions that use it import it.
"""

import contextlib
import importlib
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import jax
import numpy as np

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

SMALL_BYTES = 2**20  # the least part of an array that a device writes for itself


def steady_deadlines() -> None:
    """Let orbax measure its deadlines with a clock that nobody sets.

    It uses the wall clock, so one that is set forward by 20 minutes during a save would end it.
    """
    steady = SimpleNamespace(time=time.monotonic, sleep=time.sleep)
    for name in ("future", "signaling_client"):
        with contextlib.suppress(ImportError):  # another version of orbax
            module = importlib.import_module(f"orbax.checkpoint._src.futures.{name}")
            module.__dict__["time"] = steady


def step_handler() -> "ocp.CompositeCheckpointHandler":
    """orbax's handler for the two parts of a step: the state and the position in the data."""
    import orbax.checkpoint as ocp

    # Of an array that several devices hold, each writes a part. That pays for large arrays only:
    # cutting 600 small ones into 8 parts takes 5 s of a core, longer than writing them.
    arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=SMALL_BYTES)
    types = ocp.type_handlers.create_type_handler_registry(
        (int, ocp.type_handlers.ScalarHandler()),
        (np.number, ocp.type_handlers.ScalarHandler()),
        (np.ndarray, ocp.type_handlers.NumpyHandler()),
        (jax.Array, arrays),
    )
    state = ocp.PyTreeCheckpointHandler(type_handler_registry=types)
    return ocp.CompositeCheckpointHandler(state=state, data=ocp.JsonCheckpointHandler())
