"""What the metrics take: features, a row for each picture. Bad ones are refused, not scored."""

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from diffjax.core.errors import InputError

# The features of two sets; their widths have names of their own, so that `check_widths` compares
# them and tells the user what is wrong.
Features: TypeAlias = Float[np.ndarray, "n d"]
Others: TypeAlias = Float[np.ndarray, "m e"]

# Features whose deviation is smaller than this share of their size are constant up to rounding.
CONSTANT = 1e-6
# How many distances or kernel values are in memory at once: 32 MB in float64.
BLOCK = 1 << 22


class Spread(NamedTuple):
    """A number and its standard deviation over parts of the set."""

    mean: float
    deviation: float


def checked(name: str, features: Features, at_least: int = 2) -> Float[np.ndarray, "n d"]:
    """The features in float64.

    name: of the set, for the message. at_least: how many rows the metric needs.

    Raises:
      InputError: a number is NaN or infinite, there are fewer rows, or all rows are equal.
    """
    if len(features) < at_least:
        raise InputError(f"{name}: {len(features)} pictures, want at least {at_least}: add more")
    check_finite(name, features)
    exact = features.astype(np.float64)
    check_varied(name, exact.std(axis=0), exact)
    return exact


def check_finite(name: str, values: Float[np.ndarray, "..."]) -> None:
    """Refuses NaN and infinity.

    Raises:
      InputError: there is one. The message says how many and where the first is.
    """
    bad = ~np.isfinite(values)
    if bad.any():
        first = np.argwhere(bad)[0].tolist()
        value = values[tuple(first)]
        raise InputError(
            f"{name}: {int(bad.sum())} of {bad.size} numbers are not finite, the first is {value} "
            f"at {first}: look at that picture, or at the weights that made it"
        )


def check_varied(
    name: str, deviation: Float[np.ndarray, " d"], values: Float[np.ndarray, "..."]
) -> None:
    """Refuses features that are equal for all pictures, up to rounding.

    Raises:
      InputError: they are.
    """
    size = float(np.max(np.abs(values), initial=0.0))
    largest = float(np.max(deviation, initial=0.0))
    if largest <= CONSTANT * size:
        raise InputError(
            f"{name}: the features are constant, their largest deviation is {largest:.3g}: "
            "the pictures are all alike, or the extractor does not see them"
        )


def check_widths(name: str, width: int, other_name: str, other_width: int) -> None:
    """Refuses features of two extractors.

    Raises:
      InputError: the widths differ.
    """
    if width != other_width:
        raise InputError(
            f"{name}: {width} features, {other_name}: {other_width}: want those of one extractor"
        )


def checked_pair(
    made: Features, real: Others, at_least: int = 2
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """Both sets in float64.

    Raises:
      InputError: what `checked` and `check_widths` refuse.
    """
    check_widths("made", made.shape[1], "real", real.shape[1])
    return checked("made", made, at_least), checked("real", real, at_least)


def unit(name: str, features: Features) -> Float[np.ndarray, "n d"]:
    """The directions of features, in float64.

    Raises:
      InputError: a number is not finite, or a row is zero.
    """
    check_finite(name, features)
    exact = features.astype(np.float64)
    lengths = np.sqrt(np.sum(exact * exact, axis=-1, keepdims=True))
    if not lengths.all():
        row = int(np.argmin(lengths[:, 0]))
        raise InputError(f"{name}: row {row} is zero and has no direction: compute it again")
    return exact / lengths


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Parts of the rows, so that few of rows x columns numbers are in memory at once."""
    step = max(1, BLOCK // max(columns, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
