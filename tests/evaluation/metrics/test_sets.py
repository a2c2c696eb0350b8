"""KID, CMMD, the Inception score and neighbours against their definitions, written with loops."""

import numpy as np
import pytest

from diffjax.evaluation.metrics import cmmd, features, inception_score, kid, neighbours
from tools.inputs.metric_features import features as drawn

MADE, REAL, LOGITS = drawn(seed=6)


def test_kid_of_a_tiny_set_is_the_sum_over_pairs():
    x, y = MADE[:3], REAL[:4]

    def k(a, b):
        return (np.dot(a, b) / len(a) + 1) ** 3

    def within(z):
        return np.mean([k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j])

    want = within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert kid.squared_mmd(x, y) == pytest.approx(want, rel=1e-12)
    whole = kid.kid(x, y[:3], subsets=2, subset_size=3)  # a subset of all is the set
    assert whole.mean == pytest.approx(kid.squared_mmd(x, y[:3]), rel=1e-12)
    assert whole.deviation < 1e-12 * abs(whole.mean)


def test_cmmd_is_the_mean_kernel_over_all_pairs(monkeypatch):
    monkeypatch.setattr(features, "BLOCK", 100)  # several blocks
    x, y = (z / np.sqrt(np.sum(z**2, axis=1, keepdims=True)) for z in (MADE, REAL))

    def mean(a, b):
        return np.mean([[np.exp(-np.sum((p - q) ** 2) / 200) for q in b] for p in a])

    want = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert cmmd.cmmd(MADE, REAL) == pytest.approx(want, rel=1e-9)
    assert cmmd.cmmd(7 * MADE, REAL) == pytest.approx(want, rel=1e-9)  # directions alone count
    assert abs(cmmd.cmmd(MADE, MADE)) < 1e-10


def test_the_inception_score_of_sure_and_even_logits_is_the_number_of_classes():
    sure = 200.0 * np.eye(4)[np.arange(16) % 4]
    found = inception_score.inception_score(sure, splits=2, seed=None)
    np.testing.assert_allclose(found, (4.0, 0.0), atol=1e-12)
    with pytest.raises(ValueError, match="logits: 16 pictures, want at least 18"):
        inception_score.inception_score(sure, splits=9)


def balls(x, y, k):
    """inside[i, j]: whether x_i is within, and whether strictly within, the ball of y_j."""
    radii = [sorted(np.sum((q - other) ** 2) for other in y)[k] for q in y]
    squared = np.array([[np.sum((p - q) ** 2) for q in y] for p in x])
    return squared <= radii, squared < radii


@pytest.mark.parametrize("block", [64, 1 << 22])
def test_shares_of_balls_are_counted_as_defined(monkeypatch, block):
    monkeypatch.setattr(features, "BLOCK", block)
    within, strictly = balls(MADE, REAL, 2)
    recalled, _ = balls(REAL, MADE, 2)
    covered = neighbours.precision_recall(MADE, REAL, k=2)
    assert covered == pytest.approx((within.any(1).mean(), recalled.any(1).mean()))
    found = neighbours.density_coverage(MADE, REAL, k=2)
    assert found == pytest.approx((strictly.sum(1).mean() / 2, strictly.any(0).mean()))
    assert min(*covered, *found) > 0


def test_a_set_covers_itself_and_not_one_far_away():
    assert neighbours.precision_recall(MADE, MADE) == (1.0, 1.0)
    assert neighbours.density_coverage(MADE, MADE).coverage == 1.0
    assert neighbours.precision_recall(MADE + 1e4, REAL) == (0.0, 0.0)
    assert neighbours.density_coverage(MADE + 1e4, REAL) == (0.0, 0.0)


METRICS = {
    "kid": lambda x, y: kid.kid(x, y, subsets=1, subset_size=8),
    "cmmd": cmmd.cmmd,
    "precision_recall": neighbours.precision_recall,
    "density_coverage": neighbours.density_coverage,
}


@pytest.mark.parametrize("name", METRICS)
def test_bad_features_are_refused_in_one_line(name):
    broken = MADE.copy()
    broken[2] = np.inf
    cases = {
        "made: 6 of 288 numbers are not finite": (broken, REAL),
        "real: the features are constant": (MADE, np.repeat(REAL[:1] + 1e-9 * REAL[1], 9, axis=0)),
        "made: 6 features, real: 5": (MADE, REAL[:, :5]),
        "at least|smaller set": (MADE[:1], REAL),
    }
    for message, given in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            METRICS[name](*given)
        assert "\n" not in str(caught.value)
