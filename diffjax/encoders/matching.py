"""Parameters of a network from the tensors of others, and back."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from diffjax.core.trees import Params, PyTree, named_leaves
from diffjax.encoders.source import Source
from diffjax.encoders.stored import Stored

Tensor: TypeAlias = Stored | np.ndarray
# The path of a parameter -> where it comes from.
SourceOf: TypeAlias = Callable[[str], Source]


@functools.lru_cache(maxsize=16)
def shapes_of(model: nn.Module, *inputs: jax.ShapeDtypeStruct) -> PyTree:
    """The shapes of a network's parameters, remembered: tracing takes longer than reading a file.

    Raises what the network does if its sizes do not fit each other.
    """
    made = jax.eval_shape(lambda *given: model.init(jax.random.key(0), *given), *inputs)
    return made["params"]


def matched(
    wanted: PyTree, source_of: SourceOf, stored: Mapping[str, Tensor], where: Path, what: str
) -> tuple[Params, dict[str, Tensor]]:
    """(the parameters with the shapes `wanted`, in the stored types; the tensors left over).

    what: the network, for messages.

    Raises:
      ValueError: a tensor is missing, has another shape, or holds NaN or infinity; one line.
    """
    sources = {ours: source_of(ours) for ours in named_leaves(wanted)}
    left, flat = dict(stored), {}
    for ours, leaf in named_leaves(wanted).items():
        shape = sources[ours].shape(leaf.shape)
        for name in sources[ours].names:
            have = tuple(stored[name].shape) if name in stored else "missing"
            if have != shape:
                raise ValueError(f"{where}: {name} is {have}, want {shape}: not {what}")
    for ours, source in sources.items():
        parts = [read(left.pop(name)) for name in source.names]
        joined = np.concatenate(parts) if parts[1:] else parts[0]
        if not np.isfinite(joined).all():
            raise ValueError(
                f"{where}: {source.names[0]} holds NaN or infinity: download it again, or take "
                "another version"
            )
        flat[tuple(ours.split("/"))] = source.ours(joined)
    return flax.traverse_util.unflatten_dict(flat), left


def stored_of(params: Params, source_of: SourceOf) -> dict[str, np.ndarray]:
    """Their tensors by name, byte for byte those that `matched` read."""
    stored: dict[str, np.ndarray] = {}
    for ours, leaf in named_leaves(params).items():
        source = source_of(ours)
        parts = np.split(source.theirs(np.asarray(leaf)), len(source.names))
        stored |= dict(zip(source.names, (part.copy() for part in parts), strict=True))
    return stored


def read(one: Tensor) -> np.ndarray:
    """The numbers of a tensor."""
    return one.read() if isinstance(one, Stored) else one


def under(stored: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): one for name, one in stored.items() if name.startswith(prefix)
    }
