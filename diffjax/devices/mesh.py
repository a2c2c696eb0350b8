"""Devices, the mesh over them, and which parameter lies where: only this file names an axis."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import PyTree

from diffjax.core import trees
from diffjax.core.tables import align_columns

# The batch is split over data and fsdp. Parameters, their average and the optimiser's state are
# kept split over fsdp and tensor; a device gathers those of its fsdp group when it uses them,
# and works with its tensor share alone (Rajbhandari et al. 2020; Shoeybi et al. 2019).
AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

# An array, or its shape where nothing is computed.
Leaf: TypeAlias = jax.Array | np.ndarray | jax.ShapeDtypeStruct
Spec: TypeAlias = tuple[str | None, ...]
# A pattern of a parameter's path, and the mesh axes of the leaf's last axes, so blocks may be
# stacked on leading ones. First match wins; a leaf that no rule names is an error.
Rules: TypeAlias = Sequence[tuple[str, Spec]]
INTO: Spec = ("fsdp", "tensor")  # tensor splits what a layer puts out
OUT_OF: Spec = ("tensor", "fsdp")  # ... and what the next one takes in


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A (data, fsdp, tensor) mesh over all devices; data = -1 takes what the others leave.

    Raises:
      ValueError: the mesh needs another number of devices than there are.
    """
    devices = list(devices or jax.devices())
    if data == -1:
        data = max(len(devices) // (fsdp * tensor), 1)
    if data * fsdp * tensor != len(devices):
        raise ValueError(
            f"a mesh of data {data} x fsdp {fsdp} x tensor {tensor} needs "
            f"{data * fsdp * tensor} devices, there are {len(devices)}"
        )
    grid = np.array(devices).reshape(data, fsdp, tensor)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis split over all devices, save that a tensor group shares its rows."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def rows_here(
    sharding: NamedSharding, batch_size: int, devices: Sequence[jax.Device] | None = None
) -> list[int]:
    """The rows of a batch that this process's devices hold (or `devices`), in rising order.

    `to_devices` wants just these. Where a tensor group spans processes, several hold the same.
    """
    here = sharding.devices_indices_map((batch_size,))
    local = sharding.addressable_devices if devices is None else devices
    return sorted({row for d in local for row in range(*here[d][0].indices(batch_size))})


def spec_of(name: str, leaf: Leaf, rules: Rules) -> PartitionSpec:
    """How the rules split the axes of a leaf.

    Raises:
      ValueError: no rule names it.
    """
    if leaf.ndim == 0:
        return PartitionSpec()
    spec = next((spec for pattern, spec in rules if re.fullmatch(pattern, name)), None)
    if spec is None:
        raise ValueError(
            f"no sharding rule names {name} {leaf.shape}: add one to the SHARDING of its model"
        )
    spec = spec[-leaf.ndim :]
    return PartitionSpec(*(None,) * (leaf.ndim - len(spec)), *spec)


def state_sharding(mesh: Mesh, state: PyTree, rules: Rules) -> PyTree:
    """A sharding for every leaf of a train state, by its path.

    Raises:
      ValueError: no rule names a leaf, or a parameter's axis is no multiple of the mesh's.
    """

    def place(name: str, leaf) -> NamedSharding:
        spec = spec_of(name, leaf, rules)
        for axis, size in zip(spec, leaf.shape, strict=True):
            if axis is not None and size % mesh.shape[axis]:
                if name.startswith("opt_state"):  # factored statistics have shapes of their own
                    return replicated(mesh)
                raise ValueError(
                    f"{name} {leaf.shape}: {size} is no multiple of mesh axis {axis} = "
                    f"{mesh.shape[axis]}"
                )
        return NamedSharding(mesh, spec)

    return trees.map_named(place, state)


def table(sharding: PyTree, tree: PyTree) -> str:
    """A line per leaf: name, shape, how it is split, bytes per device; then their sum."""
    lines = _lines(sharding, tree)
    rows = [*lines, ("bytes per device", "", "", _sum(lines))]
    return "\n".join(align_columns(rows, right=(3,)))


def state_table(sharding: PyTree, state: PyTree) -> str:
    """`table` of the parameters of a train state; what else is in it, a line for each kind."""
    lines = _lines(sharding, state)
    shown = [line for line in lines if line[0].startswith("params/")]
    for kind in dict.fromkeys(line[0].partition("/")[0] for line in lines):
        if kind != "params":
            its = [line for line in lines if line[0].partition("/")[0] == kind]
            shown.append((kind, f"{len(its)} arrays", "", _sum(its)))
    rows = [*shown, ("bytes per device", "", "", _sum(lines))]
    return "\n".join(align_columns(rows, right=(3,)))


def _lines(sharding: PyTree, tree: PyTree) -> list[tuple[str, str, str, str]]:
    lines = []
    shardings = trees.named_leaves(sharding)
    for name, leaf in trees.named_leaves(tree).items():
        share = math.prod(shardings[name].shard_shape(leaf.shape)) * leaf.dtype.itemsize
        spec = ", ".join("-" if axis is None else axis for axis in shardings[name].spec)
        lines.append((name, str(tuple(leaf.shape)), f"({spec})", f"{share:,}"))
    return lines


def _sum(lines: list[tuple[str, str, str, str]]) -> str:
    return f"{sum(int(line[3].replace(',', '')) for line in lines):,}"


def to_devices(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's rows of a batch, those of `rows_here`, as global arrays."""
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in batch.items()
    }


def everywhere(tree: PyTree, mesh: Mesh) -> PyTree:
    """Host arrays, equal on all processes, as a program over the mesh takes them."""
    if jax.process_count() == 1:
        return tree

    def placed(x: ArrayLike) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, replicated(mesh), lambda index: x[index])

    return jax.tree.map(placed, tree)


def fetch(tree: PyTree) -> PyTree:
    """Arrays as NumPy's on every process, gathered where other processes hold parts of them.

    With several processes, all must call it.
    """

    def whole(x: ArrayLike) -> np.ndarray:
        if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
            return multihost_utils.process_allgather(x, tiled=True)
        return np.asarray(x)

    return jax.tree.map(whole, tree)


def keep_compilations() -> None:
    """Keep compiled programs on disk between runs, unless the environment says where."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        base = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(base / "diffjax" / "jax"))


def sampling_devices() -> list[jax.Device]:
    """Those that sample: all of this process, but one CPU, which has all cores to itself."""
    local = jax.local_devices()
    return local[:1] if local[0].platform == "cpu" else local
