"""The devices to compile for: those at hand, or those of TPU slices that need not exist."""

import os
from importlib import metadata, util
from typing import Any

import jax

from diffjax.core.errors import ConfigError, require
from diffjax.devices import chips


def devices_of(topology: str) -> list[Any]:
    """The devices of a TPU slice that need not exist, or with "" those at hand.

    Raises:
      ConfigError: no such slice, or no libtpu to compile with.
    """
    if not topology:
        return jax.devices()
    try:
        arguments = chips.topology_arguments(topology)
    except ValueError as error:
        raise ConfigError("--topology", topology, str(error)) from None
    require(
        util.find_spec("libtpu") is not None,
        "--topology",
        topology,
        f"needs libtpu, the compiler (but no TPU): pip install '{libtpu_requirement()}'",
    )
    # libtpu asks the cloud's metadata server what machine this is, unless it is told
    for name, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),  # two may compile at once, though not hold a TPU
    ):
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(**arguments).devices)
    except (RuntimeError, ValueError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError("--topology", topology, f"libtpu says: {first_line}") from None


def libtpu_requirement() -> str:
    """The libtpu that fits the installed jax, as jax itself names it: "libtpu==0.0.42.*"."""
    needed = [line.partition(";")[0].strip() for line in metadata.requires("jax") or ()]
    return next((name for name in needed if name.startswith("libtpu")), "jax[tpu]")
