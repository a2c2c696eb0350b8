"""Finds the real picture that is nearest to a sample, to tell whether the prompt was drawn."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8


def small_pixels(
    images: UInt8[np.ndarray, "n h w c"], side_px: int = 16
) -> Float[np.ndarray, "n d"]:
    """The means of equal squares of pixels, as rows in [0, 1]: coarse colours and their places.

    Raises:
      ValueError: the sides are not multiples of `side_px`.
    """
    n, height, width, c = images.shape
    if height % side_px or width % side_px:
        raise ValueError(f"pictures of {height} x {width} px, want multiples of {side_px}")
    squares = images.reshape(n, side_px, height // side_px, side_px, width // side_px, c)
    return squares.mean(axis=(2, 4), dtype=np.float64).reshape(n, -1) / 255


def distances(
    made: Float[np.ndarray, "m d"], real: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "m n"]:
    """|a - b|^2 of all pairs, in float64."""
    made, real = made.astype(np.float64), real.astype(np.float64)
    squares = np.sum(made**2, axis=1)[:, None] + np.sum(real**2, axis=1)
    return np.maximum(squares - 2 * made @ real.T, 0.0)


def ranks(
    made: Float[np.ndarray, "m d"], real: Float[np.ndarray, "n d"], wanted: Int[np.ndarray, " m"]
) -> Int[np.ndarray, " m"]:
    """For each sample, the number of real rows that are nearer than the wanted one; 0 is best.

    Rows that equal the wanted one do not count, because some drawings are in the set twice.
    """
    far = distances(made, real)
    asked = np.take_along_axis(far, wanted[:, None], axis=1)
    rounding = 1e-9 * (1.0 + asked)
    return np.sum(far < asked - rounding, axis=1)


def found(
    made: Float[np.ndarray, "m d"],
    real: Float[np.ndarray, "n d"],
    names: Sequence[str],
    asked: Sequence[str],
) -> Bool[np.ndarray, " m"]:
    """Whether the nearest real row has the wanted name, in any style.

    Raises:
      ValueError: no real row has one of the wanted names.
    """
    if unknown := sorted(set(asked) - set(names)):
        raise ValueError(f"asked for {unknown[:3]}, which no real picture is named")
    far, kinds = distances(made, real), np.asarray(names)
    nearest = far.min(axis=1)
    hits = [row[kinds == name].min() for row, name in zip(far, asked, strict=True)]
    return np.asarray(hits) <= nearest + 1e-9 * (1.0 + nearest)


def interval(hits: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    z = 1.959963984540054
    if not 0 <= hits <= trials or trials < 1:
        raise ValueError(f"{hits} hits in {trials} trials")
    share = hits / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials)
    half *= np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)
