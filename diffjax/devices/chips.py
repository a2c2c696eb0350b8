"""A table of accelerators, and the names of the TPU slices that we can compile for.

All figures are for one device as JAX counts devices. That is one chip, except for TPU7x, where
each half of a chip is a device. Peaks are for dense bfloat16 arithmetic, without sparsity.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

GIB = 2**30
CLOUD_TPU = "https://docs.cloud.google.com/tpu/docs"
NVIDIA = "https://www.nvidia.com/en-us/data-center"


@dataclass(frozen=True)
class Chip:
    """One device: peak FLOP/s in bfloat16, bytes that a program may use, bytes/s of its memory.

    usable_bytes: for a TPU, the "available HBM" that XLA names when memory runs out, which is less
    than the vendor's figure; for a GPU, its capacity, of which JAX takes a share that users set.
    source: the page that the figures are from.
    """

    name: str
    peak_flops: float
    usable_bytes: float
    bandwidth: float
    source: str


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("TPU v4", 275e12, 30.75 * GIB, 1228e9, f"{CLOUD_TPU}/v4"),
        Chip("TPU v5e", 197e12, 15.75 * GIB, 819e9, f"{CLOUD_TPU}/v5e"),
        Chip("TPU v5p", 459e12, 95.74 * GIB, 2765e9, f"{CLOUD_TPU}/v5p"),
        Chip("TPU v6e", 918e12, 31.25 * GIB, 1638e9, f"{CLOUD_TPU}/v6e"),
        Chip("TPU7x", 2307e12 / 2, 94.75 * GIB, 7380e9 / 2, f"{CLOUD_TPU}/tpu7x"),
        Chip("A100 40GB", 312e12, 40e9, 1555e9, f"{NVIDIA}/a100"),
        Chip("A100 80GB", 312e12, 80e9, 2039e9, f"{NVIDIA}/a100"),
        Chip("H100 PCIe", 756e12, 80e9, 2000e9, f"{NVIDIA}/h100"),
        Chip("H100 SXM", 989e12, 80e9, 3350e9, f"{NVIDIA}/h100"),
        Chip("H200", 989e12, 141e9, 4800e9, f"{NVIDIA}/h200"),
    )
}

# Patterns of JAX's `device_kind`, tried in this order, and the name in CHIPS that they mean.
KINDS = (
    (r"TPU v4", "TPU v4"),
    (r"TPU v5 ?(lite|e)", "TPU v5e"),
    (r"TPU v5p?", "TPU v5p"),
    (r"TPU v6.*", "TPU v6e"),
    (r"TPU ?v?7x?", "TPU7x"),
    (r".*A100.*80GB.*", "A100 80GB"),
    (r".*A100.*", "A100 40GB"),
    (r".*H100.*PCIe.*", "H100 PCIe"),
    (r".*H100.*", "H100 SXM"),
    (r".*H200.*", "H200"),
)
# The generation at the start of a topology's name, and how many sides its slices have.
GENERATIONS = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2, "tpu7x": 3}
FORMS = "v4:AxBxC, v5e:AxB, v5p:AxBxC, v6e:AxB or tpu7x:AxBxC in chips, A and B even (or all 1)"


class TopologyArguments(TypedDict, total=False):
    """The arguments of `jax.experimental.topologies.get_topology_desc` for a TPU slice."""

    platform: str
    topology_name: str
    chips_per_host_bounds: tuple[int, int, int]
    chip_config_name: str
    num_slices: int


def chip_of(device_kind: str) -> Chip | None:
    """The chip that JAX calls `device_kind`, or None if the table does not have it."""
    for pattern, name in KINDS:
        if re.fullmatch(pattern, device_kind):
            return CHIPS[name]
    return None


def least_seconds(chip: Chip, products: Iterable[tuple[float, float]]) -> dict[str, float]:
    """Lower bounds on the time of operations (FLOPs, bytes), by the roofline model.

    "compute": if arithmetic alone took time. "memory": if memory traffic alone did. "roofline":
    the sum of the slower of the two for each operation (Williams et al. 2009).
    """
    times = [(flops / chip.peak_flops, size / chip.bandwidth) for flops, size in products]
    return {
        "compute": sum(compute for compute, _ in times),
        "memory": sum(memory for _, memory in times),
        "roofline": sum(max(both) for both in times),
    }


def topology_arguments(name: str) -> TopologyArguments:
    """The arguments with which JAX describes a slice such as "v5e:16x16".

    Raises:
      ValueError: there is no such slice; the message lists the allowed names.
    """
    generation, _, shape = name.partition(":")
    sides = [int(side) for side in shape.split("x")] if re.fullmatch(r"\d+(x\d+)+", shape) else []
    one = all(side == 1 for side in sides)
    if (
        len(sides) != GENERATIONS.get(generation, -1)
        or min(sides) < 1
        or (not one and any(side % 2 for side in sides[:2]))
        or (len(sides) == 2 and max(sides) > 16)  # a slice of these ends at 256 chips
    ):
        raise ValueError(f"must be {FORMS}; v5e and v6e up to 16x16")
    arguments: TopologyArguments = {"platform": "tpu", "topology_name": name}
    if one or generation == "v4":
        arguments["chips_per_host_bounds"] = (1, 1, 1) if one else (2, 2, 1)
    if generation == "v4":  # without this, each of a chip's two cores would be a device
        arguments["chip_config_name"] = "megacore"
        arguments["num_slices"] = 1
    return arguments
