"""Arrays of weights as bytes: whole numbers from -127 to 127, and a scale for each last index.

The last axis of a kernel is that of its outputs, so each output has its own scale, max |w| / 127.
The error of a weight is at most half its scale. Vectors and numbers are kept as they are.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float, Int8

# How the name of the scales of an array ends.
SUFFIX = ".scale"


def pack(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays with two axes or more as bytes, beside each its scales; the others in float32.

    Raises:
      ValueError: names the first array that has a number which is not finite.
    """
    made: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        whole = np.asarray(array, np.float32)
        if not np.isfinite(whole).all():
            raise ValueError(f"{name} has numbers that are not finite")
        if whole.ndim < 2:
            made[name] = whole
            continue
        most = np.abs(whole).max(axis=tuple(range(whole.ndim - 1)), initial=0)
        scale = np.where(most > 0, most / 127, 1).astype(np.float32)
        made[name] = np.rint(whole / scale).astype(np.int8)
        made[name + SUFFIX] = scale
    return made


def unpack(
    array: Int8[np.ndarray, "*n d"], scale: Float[np.ndarray, " d"]
) -> Float[np.ndarray, "*n d"]:
    """The array in float32."""
    return array.astype(np.float32) * scale


def scaled(names: Iterable[str]) -> set[str]:
    """Those of the names whose scales are among them."""
    there = set(names)
    return {name for name in there if name + SUFFIX in there}
