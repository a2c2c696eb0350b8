"""How far the colours of made pictures are from those of real ones, channel by channel."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from diffjax.core.errors import InputError

CHANNELS = ("red", "green", "blue")


@dataclass(frozen=True)
class Colours:
    """Sums over all pixels of a set of pictures; those of parts are added in any order.

    count: of pixels. total, squares: of the bytes of each channel and of their squares, exact.
    """

    count: int
    total: tuple[int, ...]
    squares: tuple[int, ...]

    def __add__(self, other: "Colours") -> "Colours":
        """The sums of both sets."""
        return Colours(
            self.count + other.count,
            tuple(a + b for a, b in zip(self.total, other.total, strict=True)),
            tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
        )

    def mean(self) -> Float[np.ndarray, "3"]:
        """The mean of each channel, in 8-bit levels."""
        return np.array([total / self.count for total in self.total])

    def deviation(self) -> Float[np.ndarray, "3"]:
        """The standard deviation of each channel over all pixels, in 8-bit levels."""
        pairs = zip(self.total, self.squares, strict=True)
        # in whole numbers, so that a set of one colour has a deviation of exactly 0
        spread = [self.count * squares - total * total for total, squares in pairs]
        return np.sqrt(np.array([float(one) for one in spread])) / self.count


NO_COLOURS = Colours(0, (0, 0, 0), (0, 0, 0))


def colours_of(pictures: UInt8[np.ndarray, "n h w 3"]) -> Colours:
    """The sums of the bytes of these pictures."""
    counts = [np.bincount(pictures[..., channel].ravel(), minlength=256) for channel in range(3)]
    levels = np.arange(256)
    return Colours(
        pictures[..., 0].size,
        tuple(int(one @ levels) for one in counts),
        tuple(int(one @ (levels * levels)) for one in counts),
    )


def drift(made: Colours, real: Colours) -> dict[str, float]:
    """mean(made) - mean(real) and std(made) - std(real) of each channel, in 8-bit levels.

    `drift_COLOUR` is above 0 if the made pictures are lighter in that colour, and
    `drift_std_COLOUR` if their contrast is higher.

    Raises:
      InputError: a set has no pictures.
    """
    if not made.count or not real.count:
        raise InputError(f"{made.count} made and {real.count} real pixels: want some of both")
    means, deviations = made.mean() - real.mean(), made.deviation() - real.deviation()
    named = zip(CHANNELS, means, deviations, strict=True)
    numbers: dict[str, float] = {}
    for name, mean, deviation in named:
        numbers |= {f"drift_{name}": float(mean), f"drift_std_{name}": float(deviation)}
    return numbers
