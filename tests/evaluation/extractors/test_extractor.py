"""Features do not depend on how pictures are batched or spread, and bad pictures are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.devices import mesh as mesh_lib
from diffjax.evaluation import fid
from diffjax.evaluation.extractors import extractor as extractors
from diffjax.evaluation.extractors.extractor import Extractor
from diffjax.evaluation.extractors.open import open_extractor
from diffjax.evaluation.metrics import moments, statistics

FILTERS = np.random.default_rng(5).integers(-9, 10, (3, 4)).astype(np.float32) / 8


def apply(params, pictures):
    """The mean colour, seen through filters, and the brightest pixel: equal in any batch."""
    x = pictures.astype(jnp.float32) / 256
    return jnp.concatenate([x.mean((1, 2)) @ params["filters"], x.max((1, 2))], axis=-1)


FILTERED = Extractor("filters", "none", 7, "fd_lite0", {"filters": FILTERS}, apply)


def pictures(count, height=4, width=6, seed=0):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def alone(given):
    """The features of each picture by NumPy."""
    x = np.stack([[p.reshape(-1, 3).mean(0), p.reshape(-1, 3).max(0)] for p in given]) / 256
    return np.concatenate([x[:, 0] @ FILTERS, x[:, 1]], axis=-1)


@pytest.mark.parametrize("batch", [1, 4, 5, 32])
def test_features_are_those_of_each_picture_alone_in_any_batch(batch):
    given = pictures(9)
    found = extractors.features(FILTERED, given, batch=batch)
    np.testing.assert_allclose(found, alone(given), atol=1e-5)
    assert found.dtype == np.float32


def test_an_iterator_of_pictures_and_of_arrays_is_taken_as_one_array_is():
    given = pictures(9)
    want = extractors.features(FILTERED, given, batch=4)
    mixed = iter([given[0], given[1:6], given[6], given[7:]])
    np.testing.assert_array_equal(extractors.features(FILTERED, mixed, batch=4), want)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_features_over_a_mesh_of_eight_devices_are_those_of_one(shape):
    given = pictures(21)
    mesh = mesh_lib.make_mesh(*shape)
    found = extractors.features(FILTERED, given, batch=5, mesh=mesh)
    np.testing.assert_allclose(found, extractors.features(FILTERED, given, batch=5), atol=1e-6)


def test_a_mesh_computes_only_its_share_on_each_device():
    seen = set()

    def watched(params, rows):
        jax.debug.inspect_array_sharding(
            rows, callback=lambda s: seen.add(s.shard_shape((16, 4, 6, 3)))
        )
        return apply(params, rows)

    watching = Extractor("w", "none", 7, "fd_lite0", {"filters": FILTERS}, watched)
    extractors.features(watching, pictures(16), batch=16, mesh=mesh_lib.make_mesh())
    assert seen == {(2, 4, 6, 3)}


def test_pictures_of_each_size_keep_their_places():
    given = [pictures(1, 3 + i % 2, 4, seed=i)[0] for i in range(9)]
    found = extractors.features(FILTERED, given, batch=2, each_size=True)
    np.testing.assert_allclose(found, alone(given), atol=1e-5)


def test_mixed_sizes_are_refused_unless_each_is_allowed():
    given = [*pictures(2, 4, 6), *pictures(1, 4, 5)]
    with pytest.raises(ValueError, match=r"picture 2 is 5 x 4 px, those before are 6 x 4 px"):
        extractors.features(FILTERED, given)


def test_streamed_moments_are_those_of_all_features(monkeypatch):
    monkeypatch.setattr(extractors, "ROWS", 6)
    given = pictures(23)
    found = extractors.moments_of(FILTERED, iter(given), batch=4)
    want = moments.moments_of(extractors.features(FILTERED, given))
    assert found.count == 23
    np.testing.assert_allclose(found.mean, want.mean, rtol=1e-6)
    np.testing.assert_allclose(found.scatter, want.scatter, rtol=1e-5, atol=1e-7)


def test_streamed_statistics_have_the_hash_of_the_pictures():
    given = pictures(7)
    found = extractors.statistics_of(FILTERED, given, batch=3)
    assert (found.pictures, found.count) == (statistics.hash_of(given), 7)
    assert (found.extractor, found.resize) == ("filters", "none")


def test_at_most_a_batch_of_pictures_is_waiting():
    """The moments of an endless stream need no more memory than those of a short one."""
    alive, most = 0, 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def stream():
        nonlocal alive, most
        for picture in pictures(200):
            alive, counted = alive + 1, picture.view(Counted)
            most = max(most, alive)
            yield counted
            del counted

    extractors.moments_of(FILTERED, stream(), batch=8)
    assert most <= 24


def test_constant_pictures_have_no_distance():
    flat = np.full((9, 4, 4, 3), 7, np.uint8)
    same, other = (extractors.moments_of(FILTERED, given) for given in (flat, pictures(9)))
    with pytest.raises(ValueError, match=r"made: the features are constant"):
        fid.distance(same, other)


def test_features_that_are_not_finite_are_refused():
    broken = Extractor("broken", "none", 7, "fd_lite0", {"filters": FILTERS * np.nan}, apply)
    with pytest.raises(ValueError, match=r"features of broken: .* are not finite"):
        extractors.features(broken, pictures(2))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((0, 4, 4, 3), np.uint8), "no pictures"),
        (np.zeros((2, 4, 4, 3), np.float32), r"picture 0 has shape \(4, 4, 3\) of float32"),
        (np.zeros((2, 4, 4, 1), np.uint8), r"picture 0 has shape \(4, 4, 1\)"),
        (np.zeros((2, 0, 4, 3), np.uint8), r"picture 0 has shape \(0, 4, 3\)"),
    ],
)
def test_what_is_no_picture_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        extractors.features(FILTERED, given)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fid", "extractor 'fid': want one of lite0, lite0:FILE"),
        ("lite0:", "want one of"),
        ("clip", "extractor 'clip' has no weights: want clip:WHERE"),
        ("lite0:/nowhere/file.pth", "/nowhere/file.pth: no such file"),
        ("clip:/nowhere", "neither a folder"),
    ],
)
def test_an_extractor_that_cannot_be_opened_is_refused_in_one_line(text, said):
    with pytest.raises(ValueError, match=said) as caught:
        open_extractor(text)
    assert "\n" not in str(caught.value)
