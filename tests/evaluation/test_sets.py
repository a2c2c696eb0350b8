"""Numbers of two sets of pictures: equal to the metrics', and refused where they would mislead."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.evaluation import fid, sets
from diffjax.evaluation.collect import collect, to_bytes
from diffjax.evaluation.metrics import inception_score, kid, neighbours
from diffjax.evaluation.metrics.cmmd import cmmd
from diffjax.evaluation.metrics.fid_infinity import fid_infinity
from diffjax.evaluation.metrics.moments import moments_of
from diffjax.evaluation.metrics.statistics import hash_of
from tests.evaluation import toys
from tests.evaluation.toys import pictures

TOY = toys.extractor()


def of(shown, **options):
    return collect("made", [shown], TOY, **options).whole


MADE, REAL = pictures(24, seed=1), pictures(24, seed=2)


@pytest.fixture(scope="module")
def both():
    return of(MADE), of(REAL)


def test_the_numbers_are_those_of_the_metrics(both):
    made, real = both
    found = sets.compare(made, real, "fd_lite0").numbers
    x, y = made.features, real.features
    np.testing.assert_allclose(x, toys.halves({}, MADE), atol=1e-6)
    moments = [moments_of(rows) for rows in (x, y)]
    assert found["fd_lite0"] == pytest.approx(fid.distance(*moments))
    assert found["kid_lite0"] == pytest.approx(kid.kid(x, y, subsets=1, subset_size=24).mean)
    assert found["recall"] == neighbours.precision_recall(x, y, 3).recall
    assert found["coverage"] == neighbours.density_coverage(x, y, 5).coverage
    mean = MADE[..., 1].mean() - REAL[..., 1].mean()
    assert found["drift_green"] == pytest.approx(mean)


def test_of_inceptions_features_alone_the_distance_is_an_fid(both):
    assert {"fid", "kid"} <= sets.compare(*both, "fid").numbers.keys()
    assert not {"fid", "kid"} & sets.compare(*both, "fd_lite0").numbers.keys()


def test_of_a_clip_there_is_cmmd_and_of_many_pictures_the_limit(both, monkeypatch):
    made, real = both
    assert sets.compare(*both, "fd_clip").numbers["cmmd"] == cmmd(made.features, real.features)
    monkeypatch.setattr(sets, "SMALLEST", 8)
    limit = functools.partial(fid_infinity, smallest=8, points=4)
    monkeypatch.setattr(sets, "fid_infinity", limit)
    wanted = limit(made.features, real.statistics.moments).value
    assert sets.compare(*both, "fd_lite0").numbers["fd_lite0_infinity"] == pytest.approx(wanted)


def test_inceptions_classes_give_its_score(both):
    classes = np.random.default_rng(0).normal(size=(6, 4))
    found = sets.compare(*both, "fid", classes=classes).numbers
    wanted = inception_score.inception_score(both[0].features.astype(np.float64) @ classes)
    assert found["inception_score"] == pytest.approx(wanted.mean)
    few = sets.inception(both[0].features[:9], classes)
    assert "logits: 9 pictures" in few.left_out["inception_score"]


def test_with_fewer_pictures_than_features_the_distance_bears_their_number():
    made, real = of(MADE[:6]), of(REAL[:6])
    found = sets.compare(made, real, "fd_lite0")
    assert "fd_lite0" not in found.numbers
    assert found.left_out["fd_lite0"] == ("6 pictures for 6 features: it wants at least 7, --num 7")
    sides = (made.statistics.moments, real.statistics.moments)
    want = fid.distance(*sides, full_rank=False)
    assert found.numbers["fd_lite0_of_6"] == pytest.approx(want, rel=1e-6)
    assert "kid_lite0" in found.numbers
    unequal = sets.compare(made, of(REAL), "fd_lite0", any_count=True)
    assert not [name for name in unequal.numbers if name.startswith("fd_")]


def test_few_neighbours_leave_out_what_wants_more():
    found = sets.compare(of(MADE[:4]), of(REAL[:4]), "fd_lite0")
    assert {"precision", "recall"} <= found.numbers.keys()
    assert {"density", "coverage"} <= found.left_out.keys()
    found = sets.compare(of(MADE[:3]), of(REAL[:3]), "fd_lite0")
    assert {"precision", "recall", "density", "coverage"} <= found.left_out.keys()


def test_statistics_alone_give_the_distance_and_no_more(both):
    made, real = both
    found = sets.compare(made, sets.Set(real.statistics), "fd_lite0")
    assert found.numbers == {"fd_lite0": sets.compare(made, real, "fd_lite0").numbers["fd_lite0"]}
    assert {"kid_lite0", "precision", "recall"} <= found.left_out.keys()


def test_unequal_counts_are_compared_only_when_allowed(both):
    made, fewer = both[0], of(REAL[:20])
    with pytest.raises(ValueError, match="count 24 and with count 20"):
        sets.compare(made, fewer, "fd_lite0")
    assert sets.compare(made, fewer, "fd_lite0", any_count=True).numbers["fd_lite0"] > 0


@pytest.mark.parametrize("other", [{"name": "seven means"}, {"resize": "bicubic"}])
def test_other_extractors_and_resizes_are_refused(both, other):
    unlike = collect("real", [REAL], toys.extractor(**other)).whole
    with pytest.raises(ValueError, match="cannot be compared: make both alike"):
        sets.compare(both[0], unlike, "fd_lite0")


def test_blocks_give_what_all_at_once_gives():
    whole, parts = of(MADE), collect("made", [MADE[:10], MADE[10:]], TOY).whole
    np.testing.assert_allclose(parts.features, whole.features, atol=1e-6)
    assert parts.colours == whole.colours
    assert parts.statistics.pictures == hash_of(MADE)


FLAT = np.broadcast_to(MADE[:, :1, :1], MADE.shape)


@pytest.mark.parametrize(
    ("blocks", "asked", "words"),
    [
        ([MADE[:5]], 6, "made: 5 pictures, 6 were asked for"),
        ([MADE[:1]], None, "made: 1 pictures, want at least 2"),
        ([MADE[:3], pictures(3, side=10)], None, "of 8 x 8 px and of 10 x 10 px: want one size"),
        ([np.repeat(MADE[:1], 9, axis=0)], None, "all 9 pictures are the same"),
        ([FLAT], None, "each of the 24 pictures has a single colour"),
        ([], None, "made: 0 pictures"),
    ],
)
def test_sets_that_show_nothing_are_refused(blocks, asked, words):
    with pytest.raises(ValueError, match=words):
        collect("made", blocks, TOY, asked=asked)


def test_nan_is_refused_before_bytes_hide_it():
    made = np.zeros((2, 4, 4, 3), np.float32)
    made[1, 2, 3, 0] = np.nan
    with pytest.raises(ValueError, match=r"made: 1 of 96 numbers are not finite.*\[1, 2, 3, 0\]"):
        to_bytes("made", made)
    assert (to_bytes("made", jnp.ones((1, 2, 2, 3))) == 255).all()


def test_the_spread_over_seeds_is_that_of_a_sample():
    rows = [{"a": 1.0, "b": 2.0}, {"a": 4.0}, {"a": 7.0}]
    assert sets.spread_of(rows) == ({"a": 4.0}, {"a": 3.0})
    assert sets.spread_of(rows[:1]) == ({"a": 1.0, "b": 2.0}, {})
