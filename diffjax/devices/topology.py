"""The devices to compile for: those of this machine, or those of a TPU slice that is not here."""

import os
from importlib import metadata, util

import jax

from diffjax.core.errors import ConfigError, require
from diffjax.devices import chips


def devices_of(topology: str) -> list[jax.Device]:
    """The devices of a TPU slice such as "v5e:16x16", or with "" those of this machine.

    Raises:
      ConfigError: there is no such slice, or libtpu is not installed.
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
    # without these, libtpu asks the cloud's metadata server what machine this is
    for name, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),  # two processes may compile at the same time
    ):
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(**arguments).devices)
    except (RuntimeError, ValueError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError("--topology", topology, f"libtpu says: {first_line}") from None


def libtpu_requirement() -> str:
    """The libtpu that the installed JAX requires, such as "libtpu==0.0.42.*"."""
    needed = [line.partition(";")[0].strip() for line in metadata.requires("jax") or ()]
    return next((name for name in needed if name.startswith("libtpu")), "jax[tpu]")
