"""The principal components of vectors, by Jacobi's rotations: the same on every machine.

Sums are NumPy's own loops in float64 and no library for matrices is asked, so the last bits do not
depend on the machine's number of cores.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Rows = Float[np.ndarray, "n e"]
Square = Float[np.ndarray, "e e"]
# So many sweeps over all pairs make any matrix diagonal; most need fewer than ten.
MOST_SWEEPS = 60
BLOCK = 1024


class Principal(NamedTuple):
    """The mean [e], components [k e] of length 1, and the variance [k] along each, largest first.

    The number of a component that is farthest from zero is positive.
    """

    mean: Float[np.ndarray, " e"]
    components: Float[np.ndarray, "k e"]
    variance: Float[np.ndarray, " k"]


def fit(rows: Rows, count: int) -> Principal:
    """The first `count` principal components of the rows.

    Raises:
      ValueError: there are fewer numbers in a row.
    """
    if not 0 < count <= rows.shape[1]:
        raise ValueError(f"{count} components: want 1 to {rows.shape[1]}, the width of a vector")
    rows = np.asarray(rows, np.float64)
    mean = rows.mean(axis=0)
    covariance = np.zeros((rows.shape[1],) * 2)
    for first in range(0, len(rows), BLOCK):
        part = rows[first : first + BLOCK] - mean
        covariance += np.einsum("ni,nj->ij", part, part, optimize=False)
    variance, vectors = diagonal(covariance / len(rows))
    order = np.argsort(-variance, kind="stable")[:count]
    components = vectors.T[order]
    largest = np.argmax(np.abs(components), axis=1)
    components *= np.sign(components[np.arange(count), largest])[:, None]
    return Principal(mean, components, np.maximum(variance[order], 0.0))


def diagonal(matrix: Square) -> tuple[Float[np.ndarray, " e"], Square]:
    """(eigenvalues, eigenvectors as columns) of a symmetric matrix, in no order.

    Each step rotates e / 2 pairs of axes that share none, so that the number between the axes of
    each pair becomes zero (Golub & Van Loan, sec. 8.5.6); a sweep has every pair once.
    """
    side = len(matrix)
    even = side + side % 2
    a = np.zeros((even, even))
    a[:side, :side] = matrix
    vectors = np.eye(even)
    players = np.arange(even)
    scale = np.abs(matrix).max()
    for _ in range(MOST_SWEEPS):
        beside = np.abs(a - np.diag(np.diag(a))).max() if even > 1 else 0.0
        if beside <= 1e-15 * scale:
            break
        for _ in range(even - 1):
            p, q = players[: even // 2], players[even // 2 :][::-1]
            cosine, sine = _angles(a[p, p], a[q, q], a[p, q])
            for side_of in (a, a.T, vectors.T):  # rows, columns, and the axes so far
                first, second = side_of[p].copy(), side_of[q].copy()
                side_of[p] = cosine[:, None] * first - sine[:, None] * second
                side_of[q] = sine[:, None] * first + cosine[:, None] * second
            players = np.concatenate([players[:1], players[-1:], players[1:-1]])
    return np.diag(a)[:side].copy(), vectors[:side, :side]


def _angles(
    app: Float[np.ndarray, " m"], aqq: Float[np.ndarray, " m"], apq: Float[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """The smaller rotation that makes a_pq zero; none where it is."""
    there = apq != 0
    tau = (aqq - app) / (2 * np.where(there, apq, 1.0))
    tangent = np.where(tau >= 0, 1.0, -1.0) / (np.abs(tau) + np.hypot(1.0, tau))
    tangent = np.where(there, tangent, 0.0)
    cosine = 1 / np.hypot(1.0, tangent)
    return cosine, tangent * cosine
