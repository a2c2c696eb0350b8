"""The mesh over the devices, and where batches and parameters lie on it.

Only `devices/` knows the mesh axes. Models say with `Rules` how their parameters may be split.
"""

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

# The batch is split over data and fsdp. Parameters, their averages and the optimiser's state are
# stored split over fsdp and tensor. Before a device uses parameters it gathers the shards of its
# fsdp group (Rajbhandari et al. 2020), but it computes with its tensor share alone (Shoeybi et al.
# 2019).
AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

# An array, or its shape and type when nothing is to be computed.
Leaf: TypeAlias = jax.Array | np.ndarray | jax.ShapeDtypeStruct
Spec: TypeAlias = tuple[str | None, ...]
# Pairs of a pattern of a parameter's path and the mesh axes that split its last axes. Leading axes
# are not split, so the same rule serves a single block and stacked ones. The first match wins; a
# leaf that no rule matches is an error.
Rules: TypeAlias = Sequence[tuple[str, Spec]]
# A kernel [inputs, outputs] whose outputs are split over tensor, and one whose inputs are. The
# second takes the outputs of the first as they are, so nothing is exchanged between the two.
SPLIT_OUTPUTS: Spec = ("fsdp", "tensor")
SPLIT_INPUTS: Spec = ("tensor", "fsdp")


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A (data, fsdp, tensor) mesh over all devices, or over `devices`.

    data = -1 means the number of devices divided by fsdp and tensor.

    Raises:
      ValueError: the product of the three sizes is not the number of devices.
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
    """The sharding of an array of which every device holds the whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Splits the leading axis over all devices; the devices of a tensor group hold equal rows."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def rows_here(
    sharding: NamedSharding, batch_size: int, devices: Sequence[jax.Device] | None = None
) -> list[int]:
    """The rows of a batch that this process's devices (or `devices`) hold, in rising order.

    These are the rows that `to_devices` takes. If a tensor group spans several processes, each of
    them holds the same rows.
    """
    here = sharding.devices_indices_map((batch_size,))
    local = sharding.addressable_devices if devices is None else devices
    return sorted({row for d in local for row in range(*here[d][0].indices(batch_size))})


def spec_of(name: str, leaf: Leaf, rules: Rules) -> PartitionSpec:
    """How the rules split the axes of the leaf called `name`.

    Raises:
      ValueError: no rule matches the name.
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
    """A sharding for every leaf of a train state, by the leaf's path.

    Raises:
      ValueError: no rule matches a leaf, or the mesh does not divide a parameter's axis evenly.
    """

    def place(name: str, leaf) -> NamedSharding:
        spec = spec_of(name, leaf, rules)
        for axis, size in zip(spec, leaf.shape, strict=True):
            if axis is not None and size % mesh.shape[axis]:
                if name.startswith("opt_state"):  # factored statistics have other shapes
                    return replicated(mesh)
                raise ValueError(
                    f"{name} {leaf.shape}: {size} is not a multiple of mesh axis {axis} = "
                    f"{mesh.shape[axis]}"
                )
        return NamedSharding(mesh, spec)

    return trees.map_named(place, state)


def sharding_table(sharding: PyTree, tree: PyTree) -> str:
    """A line per leaf with its name, shape, split axes and bytes per device; then the sum."""
    lines = _lines(sharding, tree)
    rows = [*lines, ("bytes per device", "", "", _sum(lines))]
    return "\n".join(align_columns(rows, right=(3,)))


def state_table(sharding: PyTree, state: PyTree) -> str:
    """`sharding_table` of a train state's parameters, with one line for each other part of it."""
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
    """Makes global arrays of this process's rows of a batch, which are those of `rows_here`."""
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in batch.items()
    }


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Makes arguments of a program over the mesh from host arrays that all processes have."""
    if jax.process_count() == 1:
        return tree

    def placed(x: ArrayLike) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, replicated(mesh), lambda index: x[index])

    return jax.tree.map(placed, tree)


def everywhere(tree: PyTree, mesh: Mesh) -> PyTree:
    """The host arrays of a tree on every device of the mesh, so that no call sends them again."""
    if jax.process_count() > 1:
        return replicate(tree, mesh)
    return jax.device_put(tree, replicated(mesh))


def to_host(tree: PyTree) -> PyTree:
    """NumPy arrays of a tree, on every process; parts on other processes are gathered.

    With several processes, all of them must call this.
    """

    def whole(x: ArrayLike) -> np.ndarray:
        if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
            return multihost_utils.process_allgather(x, tiled=True)
        return np.asarray(x)

    return jax.tree.map(whole, tree)


def keep_compilations() -> None:
    """Keeps compiled programs on disk between runs, unless JAX has been told a folder for them."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        base = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(base / "diffjax" / "jax"))


def sampling_devices() -> list[jax.Device]:
    """The devices that sample: all of this process, but one CPU only, which uses all cores."""
    local = jax.local_devices()
    return local[:1] if local[0].platform == "cpu" else local
