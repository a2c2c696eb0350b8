"""Where a parameter of ours lies in a checkpoint of others, in both directions."""

from typing import NamedTuple

import numpy as np


class Source(NamedTuple):
    """Where a parameter comes from.

    names: of tensors that are joined along their first axis. axes: the order of the axes of ours,
    as those of the joined tensor. one_pixel: the tensors are kernels of 1 x 1 convolutions, and
    ours has not those two axes.
    """

    names: tuple[str, ...]
    axes: tuple[int, ...]
    one_pixel: bool = False

    def ours(self, joined: np.ndarray) -> np.ndarray:
        """The parameter, from the joined tensor."""
        if self.one_pixel:
            joined = joined[..., 0, 0]
        return joined.transpose(self.axes).copy()

    def theirs(self, ours: np.ndarray) -> np.ndarray:
        """The joined tensor, from the parameter."""
        joined = ours.transpose(np.argsort(self.axes)).copy()
        return joined[..., None, None] if self.one_pixel else joined

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of each of the tensors, from that of the parameter."""
        first, *others = (ours[axis] for axis in np.argsort(self.axes)) if ours else (0,)
        if not ours:
            return ()
        return (first // len(self.names), *others, *((1, 1) if self.one_pixel else ()))
