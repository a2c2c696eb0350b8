"""Weights as bytes: their error, and files of them."""

import numpy as np
import pytest

from diffjax.core import int8, tensorfile

RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.standard_normal((3, 3, 5, 7)).astype(np.float32) * np.logspace(
    -3, 2, 7, dtype=np.float32
)
TREE = {
    "in/kernel": KERNEL,
    "in/bias": KERNEL[0, 0, 0],
    "zero": np.zeros((2, 2)),
    "one": np.ones(()),
}


def test_no_weight_is_off_by_more_than_half_of_the_scale_of_its_output():
    packed = int8.pack(TREE)
    assert packed["in/kernel"].dtype == np.int8
    scale = packed["in/kernel.scale"]
    np.testing.assert_allclose(scale, np.abs(KERNEL).max((0, 1, 2)) / 127, rtol=1e-6)
    back = int8.unpack(packed["in/kernel"], scale)
    assert (np.abs(back - KERNEL) <= scale * (0.5 + 1e-5)).all()
    np.testing.assert_array_equal(np.abs(packed["in/kernel"]).max((0, 1, 2)), 127)


def test_a_file_of_bytes_is_read_as_numbers_with_the_names_and_shapes_of_the_tree(tmp_path):
    tensorfile.write(tmp_path / "x", int8.pack(TREE), {"step": "7"})
    assert tensorfile.shapes(tmp_path / "x") == {name: x.shape for name, x in TREE.items()}
    like = {
        "in": {"kernel": KERNEL, "bias": TREE["in/bias"]},
        "zero": TREE["zero"],
        "one": TREE["one"],
    }
    tree, metadata = tensorfile.read_tree(tmp_path / "x", like)
    assert metadata["step"] == "7"
    np.testing.assert_array_equal(tree["in"]["bias"], TREE["in/bias"])
    np.testing.assert_array_equal(tree["zero"], TREE["zero"])
    np.testing.assert_array_equal(tree["one"], TREE["one"])
    error = np.abs(tree["in"]["kernel"] - KERNEL).max((0, 1, 2))
    assert (error <= np.abs(KERNEL).max((0, 1, 2)) / 250).all()


def test_what_is_not_finite_is_named():
    with pytest.raises(ValueError, match="in/kernel has numbers that are not finite"):
        int8.pack({"in/kernel": np.array([[1.0, np.inf]])})
