"""Principal components against closed forms and NumPy."""

import numpy as np
import pytest

from diffjax.encoders import principal

# An orthogonal matrix in closed form: a reflection.
NORMAL = np.array([1.0, 2.0, 2.0, 4.0]) / 5
AXES = np.eye(4) - 2 * np.outer(NORMAL, NORMAL)


def test_the_components_of_known_axes_are_found_in_the_order_of_their_variance():
    spread = np.array([0.5, 3.0, 2.0, 1.0])
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(4, -1).T  # independent numbers
    found = principal.fit(corners * spread @ AXES.T + 7.0, 3)
    np.testing.assert_allclose(found.mean, 7.0)
    np.testing.assert_allclose(found.variance, [9, 4, 1])
    np.testing.assert_allclose(np.abs(found.components @ AXES), np.eye(4)[[1, 2, 3]], atol=1e-12)
    largest = np.abs(found.components).argmax(axis=1)
    assert (found.components[range(3), largest] > 0).all()


@pytest.mark.parametrize("side", [1, 2, 7, 40])
def test_any_symmetric_matrix_becomes_diagonal(side):
    random = np.random.default_rng(side)
    matrix = random.standard_normal((side, side))
    matrix = matrix + matrix.T
    values, vectors = principal.diagonal(matrix)
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, matrix, atol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(side), atol=1e-13)


def test_numbers_that_are_always_the_same_have_no_variance():
    found = principal.fit(np.array([[1.0, 5.0], [3.0, 5.0]]), 2)
    np.testing.assert_allclose(found.variance, [1, 0], atol=1e-15)
    np.testing.assert_allclose(found.components, np.eye(2), atol=1e-15)


def test_more_components_than_numbers_are_refused():
    with pytest.raises(ValueError, match="3 components: want 1 to 2"):
        principal.fit(np.zeros((4, 2)), 3)
