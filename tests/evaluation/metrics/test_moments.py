"""Moments against NumPy's, in whatever parts and order they are summed."""

import numpy as np
import pytest

from diffjax.evaluation.metrics import moments
from tools.inputs.metric_features import features

ROWS = features(seed=5)[0]
# The mean is large beside the deviation, where sums of x x^T would lose ten digits.
SHIFTED = ROWS + 1e5


@pytest.mark.parametrize("seed", range(3))
def test_parts_merge_in_any_order(seed):
    draw = np.random.default_rng(seed)
    cuts = np.sort(draw.choice(np.arange(1, len(SHIFTED)), 6, replace=False))
    parts = [moments.moments_of(part) for part in np.split(SHIFTED, cuts)]
    parts.insert(2, moments.empty(SHIFTED.shape[1]))
    found = moments.total([parts[i] for i in draw.permutation(len(parts))])
    assert found.count == len(SHIFTED)
    np.testing.assert_allclose(found.mean, SHIFTED.mean(axis=0), rtol=1e-14)
    covariance = np.cov(ROWS, rowvar=False)  # a shift does not change it
    np.testing.assert_allclose(found.covariance(), covariance, rtol=1e-10, atol=1e-10)


def test_merging_is_associative():
    a, b, c = (moments.moments_of(part) for part in np.split(ROWS, [7, 8]))
    left, right = moments.merged(moments.merged(a, b), c), moments.merged(a, moments.merged(b, c))
    np.testing.assert_allclose(left.scatter, right.scatter, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(left.mean, right.mean, rtol=1e-10)


def test_what_has_no_moments_is_refused():
    with pytest.raises(ValueError, match="no parts to merge"):
        moments.total([])
    with pytest.raises(ValueError, match="one part: 6 features, another: 5"):
        moments.merged(moments.moments_of(ROWS), moments.moments_of(ROWS[:, :5]))
    with pytest.raises(ValueError, match="count = 1: a covariance wants at least 2"):
        moments.moments_of(ROWS[:1]).covariance()
    broken = ROWS.copy()
    broken[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 of 288 numbers are not finite, .* nan at \[3, 2\]"):
        moments.moments_of(broken)
