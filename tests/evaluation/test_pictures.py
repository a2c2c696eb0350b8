"""Scores of made pictures, beside the functions that they call."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.evaluation import fidelity, pictures
from diffjax.evaluation.examples import Examples
from diffjax.images import pixels

REAL = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


def examples(images, names=("", "", "")):
    return Examples({"image": images}, tuple(names), tuple(f"a {name}" for name in names))


def test_enlarged_pictures_stand_beside_bicubic():
    truth = pixels.from_uint8(jnp.asarray(REAL))
    low_res, noisy = pixels.resize(truth, 4, 4), truth + 0.1
    made = {"made": np.asarray(noisy), "low_res": np.asarray(low_res)}
    found = pictures.Fidelity()(made, examples(REAL))
    bytes_ = np.asarray(pixels.to_uint8(noisy))
    np.testing.assert_array_equal(found["psnr"], fidelity.psnr(bytes_, REAL))
    np.testing.assert_array_equal(found["ssim"], fidelity.ssim(bytes_, REAL))
    plain = np.asarray(pixels.to_uint8(pixels.resize(low_res, 16, 16)))
    np.testing.assert_array_equal(found["psnr_bicubic"], fidelity.psnr(plain, REAL))
    assert (found["ssim_bicubic"] < found["ssim"]).all()


def test_pictures_smaller_than_its_window_have_no_ssim():
    small = REAL[:, :8, :8]
    made = {"made": np.zeros((3, 8, 8, 3), np.float32), "low_res": np.zeros((3, 4, 4, 3), "f4")}
    found = pictures.Fidelity()(made, examples(small))
    assert sorted(found) == ["psnr", "psnr_bicubic"]


def test_the_nearest_drawing_is_the_one_that_was_asked_for():
    """By its name and its caption: a name is drawn in two styles."""
    names = ("apple", "apple", "pear")
    gallery = pictures.gallery_of(REAL, names, ("round", "oval", "green"))
    made = np.asarray(pixels.from_uint8(jnp.asarray(REAL)))[[1, 0, 2]]
    asked = Examples({"image": REAL}, names, ("round", "oval", "green"))
    found = pictures.Nearest(gallery)({"made": made}, asked)
    assert found["retrieval_nearest"].tolist() == [0.0, 0.0, 1.0]
    assert found["retrieval_first_five"].tolist() == [1.0, 1.0, 1.0]


def test_an_example_that_the_gallery_lacks_is_no_silent_miss():
    gallery = pictures.gallery_of(REAL, ("a", "b", "c"), ("x", "y", "z"))
    asked = Examples({"image": REAL}, ("a", "b", "d"), ("x", "y", "z"))
    with pytest.raises(KeyError, match="d"):
        pictures.Nearest(gallery)({"made": np.zeros((3, 16, 16, 3), np.float32)}, asked)
