"""Where a parameter of ours lies in a checkpoint of others, in both directions."""

from typing import NamedTuple

import numpy as np


class Source(NamedTuple):
    """Where a parameter comes from.

    names: of tensors that are joined along their first axis. axes: the order of the axes of ours,
    as those of the joined tensor. ones: how many axes of length 1 the tensors have beside, at the
    end: two for kernels of 1 x 1 convolutions, one for those over a sequence.
    """

    names: tuple[str, ...]
    axes: tuple[int, ...]
    ones: int = 0

    def ours(self, joined: np.ndarray) -> np.ndarray:
        """The parameter, from the joined tensor."""
        return joined.reshape(joined.shape[: len(self.axes)]).transpose(self.axes).copy()

    def theirs(self, ours: np.ndarray) -> np.ndarray:
        """The joined tensor, from the parameter."""
        joined = ours.transpose(np.argsort(self.axes)).copy()
        return joined.reshape((*joined.shape, *(1,) * self.ones))

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of each of the tensors, from that of the parameter."""
        first, *others = (ours[axis] for axis in np.argsort(self.axes)) if ours else (0,)
        if not ours:
            return ()
        return (first // len(self.names), *others, *(1,) * self.ones)
