"""Mean and covariance of features, summed in parts that may be merged in any order."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from diffjax.core.errors import InputError
from diffjax.evaluation.metrics.features import (
    Features,
    check_finite,
    check_varied,
    check_widths,
)


@dataclass(frozen=True)
class Moments:
    """The first two moments of a set of features, in float64.

    scatter: sum over the rows of (x - mean) (x - mean)^T. It is centred, so no digits are lost when
    the mean is large beside the deviation.
    """

    count: int
    mean: Float[np.ndarray, " d"]
    scatter: Float[np.ndarray, "d d"]

    @property
    def width(self) -> int:
        """The number of features."""
        return len(self.mean)

    def covariance(self) -> Float[np.ndarray, "d d"]:
        """scatter / (count - 1), the unbiased covariance.

        Raises:
          InputError: there are fewer than two rows.
        """
        if self.count < 2:
            raise InputError(f"count = {self.count}: a covariance wants at least 2 pictures")
        return self.scatter / (self.count - 1)


def empty(width: int) -> Moments:
    """The moments of no rows: merging with them changes nothing."""
    return Moments(0, np.zeros(width), np.zeros((width, width)))


def moments_of(features: Features) -> Moments:
    """The moments of the rows.

    Raises:
      InputError: a number is NaN or infinite.
    """
    check_finite("features", features)
    if not len(features):
        return empty(features.shape[1])
    exact = features.astype(np.float64)
    mean = exact.mean(axis=0)
    centred = exact - mean
    return Moments(len(exact), mean, centred.T @ centred)


def merged(a: Moments, b: Moments) -> Moments:
    """The moments of both sets together (Chan, Golub & LeVeque 1983, eq. 2.1).

    scatter = scatter_a + scatter_b + n_a n_b / (n_a + n_b) delta delta^T, delta = mean_b - mean_a.

    Raises:
      InputError: they have other widths.
    """
    check_widths("one part", a.width, "another", b.width)
    count = a.count + b.count
    if not a.count or not b.count:
        return a if a.count else b
    delta = b.mean - a.mean
    mean = a.mean + delta * (b.count / count)
    between = np.outer(delta, delta) * (a.count * b.count / count)
    return Moments(count, mean, a.scatter + b.scatter + between)


def total(parts: Iterable[Moments]) -> Moments:
    """The moments of all parts together. The order changes rounding alone.

    Raises:
      InputError: there are no parts, or they have different widths.
    """
    every = iter(parts)
    first = next(every, None)
    if first is None:
        raise InputError("no parts to merge: want at least one")
    for part in every:
        first = merged(first, part)
    return first


def check_moments(
    name: str, moments: Moments, *, asked: int | None = None, full_rank: bool = True
) -> None:
    """Refuses moments from which no distance should be computed.

    asked: how many pictures there should be. full_rank: whether there must be more pictures than
    features; with fewer the covariance is singular, and a Frechet distance depends mainly on the
    number of pictures.

    Raises:
      InputError: there are too few pictures, or their features are constant or not finite.
    """
    if asked is not None and moments.count < asked:
        raise InputError(f"{name}: {moments.count} pictures, {asked} were asked for: add the rest")
    wanted = moments.width + 1 if full_rank else 2
    if moments.count < wanted:
        raise InputError(
            f"{name}: {moments.count} pictures for {moments.width} features, a covariance of full "
            f"rank wants at least {wanted}: take more pictures, or KID, which needs fewer"
            if full_rank
            else f"{name}: {moments.count} pictures, want at least 2: add more"
        )
    check_finite(name, moments.mean)
    check_finite(name, moments.scatter)
    deviation = np.sqrt(np.maximum(np.diagonal(moments.scatter), 0.0) / moments.count)
    check_varied(name, deviation, moments.mean)
