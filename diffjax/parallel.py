"""Devices, the mesh over them, and which parameter lies where: only this file names an axis."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from diffjax import trees

AXES = ("data", "fsdp")
# First match wins; a spec names a leaf's last axes. A leaf that no rule names is an error.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"(.*/)?head/conv/kernel", (None,)),  # 3 output channels
    (r"(.*/)?text_pool/score/kernel", (None,)),  # one column per pooling head
    (r"(.*/)?kernel", ("fsdp",)),  # output channels
    (r"(.*/)?(bias|scale)", (None,)),  # a vector per layer: not worth a gather
)


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A (data, fsdp) mesh over all devices; data = -1 takes what fsdp leaves.

    Raises:
      ValueError: the mesh needs another number of devices than there are.
    """
    devices = list(devices or jax.devices())
    if data == -1:
        data = max(len(devices) // fsdp, 1)
    if data * fsdp != len(devices):
        raise ValueError(
            f"a mesh of data {data} x fsdp {fsdp} needs {data * fsdp} devices, "
            f"there are {len(devices)}"
        )
    return Mesh(np.array(devices).reshape(data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def state_sharding(mesh: Mesh, state: Any, rules=RULES) -> Any:
    """A sharding for every leaf of a train state, by its path.

    Raises:
      ValueError: no rule names a leaf, or a parameter's axis is no multiple of the mesh's.
    """

    def place(name: str, leaf) -> NamedSharding:
        if leaf.ndim == 0:
            return replicated(mesh)
        spec = next((spec for pattern, spec in rules if re.fullmatch(pattern, name)), None)
        if spec is None:
            raise ValueError(f"no sharding rule names {name} {leaf.shape}: add one to RULES")
        spec = spec[-leaf.ndim :]
        for axis, size in zip(spec, leaf.shape[leaf.ndim - len(spec) :], strict=True):
            if axis is not None and size % mesh.shape[axis]:
                if name.startswith("opt_state"):  # factored statistics have shapes of their own
                    return replicated(mesh)
                raise ValueError(
                    f"{name} {leaf.shape}: {size} is no multiple of mesh axis {axis} = "
                    f"{mesh.shape[axis]}"
                )
        return NamedSharding(mesh, PartitionSpec(*(None,) * (leaf.ndim - len(spec)), *spec))

    return trees.map_named(place, state)


def to_devices(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's part of a batch as global arrays."""
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in batch.items()
    }


def keep_compilations() -> None:
    """Keep compiled programs on disk between runs, unless the environment says where."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        base = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(base / "diffjax" / "jax"))
