"""The Frechet distance against its closed forms."""

import numpy as np
import pytest

from diffjax.evaluation import fid
from diffjax.evaluation.metrics import moments
from diffjax.evaluation.metrics.fid_infinity import fid_infinity, line
from tools.inputs.metric_features import features

MADE, REAL, _ = features(seed=4)


def test_the_distance_of_a_set_to_itself_is_zero():
    found = moments.moments_of(MADE)
    assert fid.distance(found, found) < 1e-12 * np.trace(found.covariance())


def test_with_diagonal_covariances_it_is_the_sum_of_squared_differences():
    """|m_a - m_b|^2 + sum (s_a - s_b)^2, s the standard deviations."""
    mean_a, mean_b = np.array([1.0, -2.0, 0.5]), np.array([0.0, 3.0, 0.5])
    s_a, s_b = np.array([1.0, 2.0, 0.1]), np.array([3.0, 1e-4, 0.0])
    found = fid.frechet_distance(mean_a, np.diag(s_a**2), mean_b, np.diag(s_b**2))
    want = np.sum((mean_a - mean_b) ** 2) + np.sum((s_a - s_b) ** 2)
    assert found == pytest.approx(want, rel=1e-12)


def test_with_commuting_covariances_only_their_eigenvalues_count():
    """c = a I + b J has the eigenvalues a, and a + n b for the vector of ones."""
    n = 5
    covariances, roots = [], []
    for a, b in ((2.0, 0.7), (0.3, 1.9)):
        covariances.append(a * np.eye(n) + b * np.ones((n, n)))
        roots.append(np.sqrt([a] * (n - 1) + [a + n * b]))
    found = fid.frechet_distance(np.zeros(n), covariances[0], np.zeros(n), covariances[1])
    assert found == pytest.approx(np.sum((roots[0] - roots[1]) ** 2), rel=1e-12)


def test_with_covariances_that_do_not_commute_it_is_that_of_two_by_two_matrices():
    """tr (A B)^(1/2) = sqrt(tr A B + 2 sqrt(det A B)) for 2 x 2 matrices."""
    a, b = np.array([[2.0, 0.6], [0.6, 1.0]]), np.array([[0.5, -0.3], [-0.3, 3.0]])
    det = (2.0 * 1.0 - 0.36) * (0.5 * 3.0 - 0.09)
    want = 3.0 + 3.5 - 2 * np.sqrt(np.sum(a * b) + 2 * np.sqrt(det))
    zero = np.zeros(2)
    assert fid.frechet_distance(zero, a, zero, b) == pytest.approx(want, rel=1e-12)
    assert fid.frechet_distance(zero, b, zero, a) == pytest.approx(want, rel=1e-12)


def test_directions_with_little_variance_lose_no_digits():
    """Eigenvalues of the product would be 1e-24 and lost beside 1."""
    a, b = np.diag([1.0, 1e-12]), np.diag([1.0, 4e-12])
    zero = np.zeros(2)
    assert fid.frechet_distance(zero, a, zero, b) == pytest.approx(1e-12, rel=1e-3)


def test_directions_without_variance_add_nothing():
    """With a covariance v v^T the middle term is 2 sqrt(v^T B v), and with zeros there is none."""
    v, b = np.array([3.0, -1.0, 2.0]), np.diag([1.0, 4.0, 0.5])
    zero = np.zeros(3)
    found = fid.frechet_distance(zero, np.outer(v, v), zero, b)
    assert found == pytest.approx(v @ v + 5.5 - 2 * np.sqrt(v @ b @ v), rel=1e-12)
    assert fid.frechet_distance(zero, np.zeros((3, 3)), zero, b) == pytest.approx(5.5, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(mean_b=np.zeros(3)), "mean_a: 2 features, mean_b: 3"),
        (dict(cov_b=np.eye(3)), r"cov_b: shape \(3, 3\), want \(2, 2\)"),
        (dict(cov_a=np.array([[1.0, 0.5], [0.0, 1.0]])), "cov_a: not symmetric"),
        (dict(cov_a=np.diag([1.0, -0.5])), "cov_a: has the eigenvalue -0.5 < 0"),
        (dict(cov_a=np.diag([1.0, np.nan])), "cov_a: 1 of 4 numbers are not finite"),
        (dict(mean_a=np.array([0.0, np.inf])), r"mean_a: 1 of 2 .* first is inf at \[1\]"),
    ],
)
def test_what_is_no_gaussian_is_refused(change, message):
    given = dict(mean_a=np.zeros(2), cov_a=np.eye(2), mean_b=np.zeros(2), cov_b=np.eye(2))
    with pytest.raises(ValueError, match=message) as caught:
        fid.frechet_distance(**(given | change))
    assert "\n" not in str(caught.value)


def test_sets_that_tell_no_distance_are_refused():
    real, made = moments.moments_of(REAL), moments.moments_of(MADE)
    with pytest.raises(ValueError, match="made: 48 pictures, 50 were asked for"):
        fid.distance(made, real, asked=50)
    with pytest.raises(
        ValueError, match=r"6 pictures for 6 features, .* full rank wants at least 7"
    ):
        fid.distance(moments.moments_of(MADE[:6]), real)
    with pytest.raises(ValueError, match="made: the features are constant"):
        fid.distance(moments.moments_of(np.repeat(MADE[:1], 9, axis=0)), real)
    with pytest.raises(ValueError, match="made: 5 features, real: 6"):
        fid.distance(moments.moments_of(MADE[:, :5]), real)
    assert fid.distance(moments.moments_of(MADE[:6]), real, full_rank=False) > 0


def test_a_line_is_continued_to_infinitely_many_pictures():
    sizes = np.array([10.0, 20.0, 40.0, 80.0])
    found = line(1 / sizes, 3.0 + 50.0 / sizes)
    np.testing.assert_allclose(found, (3.0, 50.0, 0.0), atol=1e-12)


def test_fid_infinity_is_below_the_distance_of_all_pictures():
    """The bias of few pictures is positive, so the limit is lower and the slope positive."""
    real = moments.moments_of(REAL)
    found = fid_infinity(MADE, real, points=8, smallest=12)
    assert found.slope > 0
    assert found.value < fid.distance(moments.moments_of(MADE), real)
    assert found == fid_infinity(MADE, real, points=8, smallest=12)
    with pytest.raises(ValueError, match=r"48 pictures, points = 8, smallest = 6: .* 6 features"):
        fid_infinity(MADE, real, points=8, smallest=6)


def test_of_few_rows_the_distance_is_that_of_their_covariances():
    """Without the covariances themselves, by the smaller matrix of products of rows."""
    draw = np.random.default_rng(3)
    x, y = draw.normal(size=(5, 9)), 2 + draw.normal(size=(7, 9))
    wanted = fid.distance(*map(moments.moments_of, (x, y)), full_rank=False)
    assert fid.distance_of_few(x, y) == pytest.approx(wanted, rel=1e-6)
    assert fid.distance_of_few(x, x) < 1e-12
