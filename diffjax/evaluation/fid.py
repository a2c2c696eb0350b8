"""The Frechet distance between two Gaussians, and between two sets of features.

It is an FID only if the features are those of the Inception network of 2015; with other features it
has another name, and its values cannot be compared.
"""

from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Float, Num

from diffjax.core.errors import InputError
from diffjax.evaluation.metrics.features import (
    Features,
    Others,
    check_finite,
    check_widths,
    checked_pair,
)
from diffjax.evaluation.metrics.moments import Moments, check_moments

Vector: TypeAlias = Num[np.ndarray | jax.Array, " _"]
Matrix: TypeAlias = Num[np.ndarray | jax.Array, "_ _"]
# How far, as a share of its largest entry, a covariance may be from symmetric and from positive.
ROUNDING = 1e-6


def frechet_distance(mean_a: Vector, cov_a: Matrix, mean_b: Vector, cov_b: Matrix) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2))  (Dowson & Landau 1982; Heusel et al. 2017).

    A and B are the covariances. tr (A B)^(1/2) is the sum of the roots of the eigenvalues of the
    symmetric product sqrt(A) B sqrt(A). These roots are the singular values of R^T S for any
    R R^T = A and S S^T = B, and computed as such: the product would square them and lose half of
    the digits of small ones. R and S come from the eigenvectors of symmetric matrices, so no
    complex number appears, and leave out directions without variance. Everything is in float64.

    Raises:
      InputError: the widths differ, a number is not finite, or a matrix is no covariance.
    """
    a, b = _exact("mean_a", mean_a), _exact("mean_b", mean_b)
    check_widths("mean_a", len(a), "mean_b", len(b))
    factor_a, trace_a = _factor("cov_a", cov_a, len(a))
    factor_b, trace_b = _factor("cov_b", cov_b, len(b))
    return _distance(a - b, factor_a, trace_a, factor_b, trace_b)


def distance(a: Moments, b: Moments, *, asked: int | None = None, full_rank: bool = True) -> float:
    """The Frechet distance between two sets of features, from their moments.

    asked: how many pictures of `a` there should be. full_rank=False allows sets with fewer pictures
    than features; such a number may only be compared with those of as many pictures.

    Raises:
      InputError: what `check_moments` and `frechet_distance` refuse.
    """
    check_widths("made", a.width, "real", b.width)
    check_moments("made", a, asked=asked, full_rank=full_rank)
    check_moments("real", b, full_rank=full_rank)
    return frechet_distance(a.mean, a.covariance(), b.mean, b.covariance())


def distance_of_few(made: Features, real: Others) -> float:
    """The Frechet distance of sets with fewer rows than features, without their covariances.

    X and Y are the centred rows, n and m of them. The singular values of sqrt(A) sqrt(B) are those
    of X Y^T / sqrt((n - 1) (m - 1)), a small matrix. Both covariances are singular, and the value
    depends mainly on n and m: compare it with distances of as many rows alone.

    Raises:
      InputError: what `checked_pair` refuses.
    """
    x, y = checked_pair(made, real)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    x, y = (x - mean_x) / np.sqrt(len(x) - 1), (y - mean_y) / np.sqrt(len(y) - 1)
    product = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    shift, traces = mean_x - mean_y, float(np.sum(x * x) + np.sum(y * y))
    return max(0.0, float(shift @ shift) + traces - 2 * float(product))


def _exact(name: str, values: Num[np.ndarray | jax.Array, "..."]) -> Float[np.ndarray, "..."]:
    exact = np.asarray(values, np.float64)
    check_finite(name, exact)
    return exact


def _factor(name: str, covariance: Matrix, width: int) -> tuple[Float[np.ndarray, "d r"], float]:
    """(R with R R^T = covariance and as many columns as its rank, the trace)."""
    exact = _exact(name, covariance)
    if exact.shape != (width, width):
        raise InputError(f"{name}: shape {exact.shape}, want {(width, width)} as its mean has")
    largest = float(np.max(np.abs(exact), initial=0.0))
    skew = float(np.max(np.abs(exact - exact.T), initial=0.0))
    if skew > ROUNDING * largest:
        raise InputError(f"{name}: not symmetric, entries differ by {skew:.3g}: want a covariance")
    values, vectors = np.linalg.eigh((exact + exact.T) / 2)
    if values[0] < -ROUNDING * largest:
        raise InputError(f"{name}: has the eigenvalue {values[0]:.3g} < 0: want a covariance")
    varied = values > values[-1] * width * np.finfo(np.float64).eps
    return vectors[:, varied] * np.sqrt(values[varied]), float(np.trace(exact))


def _distance(
    shift: Float[np.ndarray, " d"],
    factor_a: Float[np.ndarray, "d r"],
    trace_a: float,
    factor_b: Float[np.ndarray, "d s"],
    trace_b: float,
) -> float:
    product = np.linalg.svd(factor_a.T @ factor_b, compute_uv=False).sum()
    # rounding may lead a little below zero, where no distance is
    return max(0.0, float(shift @ shift) + trace_a + trace_b - 2 * float(product))
