"""Statistics carry what they depend on, and unlike ones refuse to be compared."""

import numpy as np
import pytest

from diffjax.evaluation import fid
from diffjax.evaluation.metrics import statistics
from diffjax.evaluation.metrics.moments import moments_of
from tools.inputs.metric_features import features

MADE, REAL, _ = features(seed=8)
PICTURES = np.random.default_rng(0).integers(0, 256, (48, 2, 3, 1), dtype=np.uint8)


def of(rows, pictures=PICTURES, **other):
    given = {"extractor": "some network", "resize": "bicubic 8 px", **other}
    return statistics.statistics_of(pictures[: len(rows)], rows[: len(pictures)], **given)


def test_they_are_read_as_they_were_written(tmp_path):
    path, written = tmp_path / "folder" / "some.safetensors", of(MADE)
    statistics.save(path, written)
    read = statistics.load(path)
    assert (read.extractor, read.resize, read.pictures) == (
        written.extractor, written.resize, written.pictures,
    )  # fmt: skip
    assert read.count == 48
    np.testing.assert_array_equal(read.moments.scatter, written.moments.scatter)
    np.testing.assert_array_equal(read.moments.mean, written.moments.mean)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "some.safetensors"
    statistics.save(path, of(MADE))
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match="damaged"):
        statistics.load(path)
    with pytest.raises(ValueError, match="no such file"):
        statistics.load(tmp_path / "none")


def test_the_hash_of_pictures_ignores_their_order_and_nothing_else():
    whole = statistics.hash_of(PICTURES)
    assert statistics.hash_of(PICTURES[::-1]) == whole
    assert statistics.hash_of(PICTURES[1:]) != whole
    assert statistics.hash_of(PICTURES.swapaxes(1, 2)) != whole
    other = PICTURES.copy()
    other[0, 0, 0, 0] ^= 1
    assert statistics.hash_of(other) != whole


def test_parts_together_are_the_statistics_of_all():
    parts = [of(MADE[part], PICTURES[part]) for part in (slice(30, 48), slice(30))]
    both, whole = statistics.together(*parts), of(MADE)
    assert (both.pictures, both.count) == (whole.pictures, whole.count)
    np.testing.assert_allclose(both.moments.scatter, whole.moments.scatter, rtol=1e-10, atol=1e-10)


def test_the_distance_is_that_of_the_moments():
    want = fid.distance(moments_of(MADE), moments_of(REAL[:48]))
    assert statistics.distance(of(MADE), of(REAL)) == pytest.approx(want, rel=1e-12)


def test_unlike_statistics_are_not_compared():
    made = of(MADE)
    unlike = {
        "extractor some network and with extractor another": of(REAL, extractor="another"),
        "resize bicubic 8 px and with resize nearest 8 px": of(REAL, resize="nearest 8 px"),
        "count 48 and with count 40": of(REAL[:40]),
    }
    for message, real in unlike.items():
        with pytest.raises(ValueError, match=f"{message} cannot be compared"):
            statistics.distance(made, real)
    assert statistics.distance(made, of(REAL[:40]), any_count=True) > 0
    with pytest.raises(ValueError, match="48 pictures, 47 rows"):
        statistics.statistics_of(PICTURES, MADE[1:], extractor="", resize="")
