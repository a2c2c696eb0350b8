"""A tensor in a file of weights, which is read only when needed, and in parts."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

# Bytes read at once: enough for the full speed of the disk, and little beside a tensor.
BLOCK_BYTES = 1 << 22
# The types of numbers that can be read, by their names in safetensors.
DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}

Box = tuple[slice, ...]


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in `file`. `window(box)` reads a part; the slices of `box` have start and stop."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    window: Callable[[Box], np.ndarray]

    @property
    def nbytes(self) -> int:
        """The size of the tensor in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def block_rows(self) -> int:
        """How many rows, along the first axis, are read at once."""
        return max(1, BLOCK_BYTES * (self.shape or (1,))[0] // max(self.nbytes, 1))

    def read(
        self, index: Box | None = None, dtype: DTypeLike | None = None, transposed: bool = False
    ) -> np.ndarray:
        """The part `index` of the tensor, or of its transpose, in `dtype` (None: as stored).

        Beside the result only one block of a few MB is in memory, because the tensor is cast and
        transposed block by block.
        """
        if not self.shape:
            return np.asarray(self.window(()), dtype or self.dtype)
        order = -1 if transposed else 1
        index = index or (slice(None),) * len(self.shape)
        box = [range(*s.indices(n)) for s, n in zip(index[::order], self.shape, strict=True)]
        out = np.empty([len(r) for r in box][::order], dtype or self.dtype)
        stored_order = out.T if transposed else out
        step = self.block_rows
        columns = tuple(slice(r.start, r.stop) for r in box[1:])
        for i in range(0, len(box[0]), step):
            rows = slice(box[0].start + i, min(box[0].start + i + step, box[0].stop))
            stored_order[i : i + step] = self.window((rows, *columns))
        return out
