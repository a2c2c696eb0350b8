"""The extractor of a CLIP has the features of its image tower."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.encoders.clip import encoder
from diffjax.evaluation.extractors import extractor as extractors
from diffjax.evaluation.extractors.open import open_extractor
from diffjax.images import pixels
from tests.encoders.clip import small
from tools.inputs import random_tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small.write(tmp_path_factory.mktemp("clips") / "small")


@pytest.fixture(scope="module")
def clip(folder):
    return open_extractor(f"clip:{folder}")


def test_its_features_are_those_that_the_encoder_makes_unit_vectors_of(clip, folder):
    pictures = random_tensors.blocks(0, 3, 16, 16)
    found = extractors.features(clip, pictures, batch=2)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(
        found / lengths, encoder.load(folder).of_pictures(pictures), atol=1e-5
    )
    assert np.ptp(lengths) > 1e-3  # the lengths are kept


def test_it_says_what_it_is(clip, folder):
    known = encoder.load(folder)
    assert clip.name == f"clip small image tower, weights {known.fingerprint[:16]}"
    assert (clip.label, clip.width, clip.resize) == ("fd_clip", 8, "bicubic 16 px")


def test_a_larger_picture_is_resized_as_a_whole(clip):
    large = random_tensors.blocks(1, 1, 48, 64)
    made = pixels.to_uint8(pixels.resize(pixels.from_uint8(jnp.asarray(large)), 16, 16))
    one, other = (extractors.features(clip, np.asarray(x), batch=1) for x in (made, large))
    np.testing.assert_allclose(one, other, atol=0.03)  # but for rounding to bytes


def test_equal_networks_share_a_program(clip, folder):
    assert open_extractor(f"clip:{folder}").apply is clip.apply


def test_a_folder_of_another_network_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"not a CLIP"):
        open_extractor(f"clip:{tmp_path}")
