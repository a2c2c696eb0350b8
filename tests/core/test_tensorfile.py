import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from diffjax.core import tensorfile

RANDOM = np.random.default_rng(0)
TENSORS = {
    "b/kernel": RANDOM.standard_normal((3, 4)).astype(np.float32),
    "a/kernel": RANDOM.standard_normal((5,)).astype(jnp.bfloat16),
    "step": np.array(7, np.int32),
    "flag": np.array([True, False, True]),
    "none": np.zeros((0, 3), np.float64),
    "strided": RANDOM.standard_normal((4, 6)).astype(np.float32)[::2, ::3].T,
}


def test_the_safetensors_library_reads_the_same_arrays(tmp_path):
    path = tmp_path / "sub" / "x.safetensors"
    tensorfile.write(path, TENSORS, {"step": "7"})
    read = load_file(path)
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype
        np.testing.assert_array_equal(read[name], tensor)
        np.testing.assert_array_equal(tensorfile.read(path, name), tensor)
    assert tensorfile.shapes(path) == {name: tensor.shape for name, tensor in TENSORS.items()}
    assert tensorfile.verify(path)["step"] == "7"


def test_every_flipped_byte_is_found(tmp_path):
    path = tmp_path / "x.safetensors"
    tensorfile.write(path, TENSORS, {"step": "7"})
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :])
        with pytest.raises(ValueError, match=r"x\.safetensors: (damaged|no sha256)"):
            tensorfile.verify(path)


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_truncated_file_is_found(tmp_path, length):
    path = tmp_path / "x.safetensors"
    tensorfile.write(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="damaged"):
        tensorfile.verify(path)


def test_the_order_of_the_tensors_does_not_change_the_file(tmp_path):
    backwards = dict(reversed(TENSORS.items()))
    tensorfile.write(tmp_path / "a", TENSORS, {"step": "7"})
    tensorfile.write(tmp_path / "b", backwards, {"step": "7"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_write_leaves_only_the_old_file(tmp_path):
    path = tmp_path / "x.safetensors"
    tensorfile.write(path, TENSORS, {})

    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        tensorfile.write(path, {"a": tensorfile.Promise((3,), np.dtype("f4"), full)}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    assert tensorfile.verify(path)


def test_a_promised_array_of_another_shape_is_refused(tmp_path):
    promise = tensorfile.Promise((3,), np.dtype("f4"), lambda: np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="promised"):
        tensorfile.write(tmp_path / "x.safetensors", {"a": promise}, {})
