import json
import re
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffjax.encoders import stored as stored_lib
from diffjax.encoders import tensors

VALUES = {
    "matrix": np.arange(77, dtype=np.float32).reshape(11, 7),
    "vector": np.arange(9, dtype=np.float16),
    "decoder.matrix": np.ones((2, 2), np.float32),
}


@pytest.fixture
def folder(tmp_path):
    save_file(VALUES, tmp_path / tensors.WEIGHTS)
    return tmp_path


def shard(folder, of):
    """Split the folder's one file by `of`, name -> number of the shard; returns the index."""
    values = load_file(folder / tensors.WEIGHTS)
    (folder / tensors.WEIGHTS).unlink()
    name = "model-0000{}-of-00002.safetensors".format
    for i in set(of.values()):
        save_file({n: t for n, t in values.items() if of[n] == i}, folder / name(i))
    index = {"metadata": {}, "weight_map": {n: name(i) for n, i in of.items()}}
    (folder / tensors.INDEX).write_text(json.dumps(index))
    return index


@pytest.mark.parametrize("block_bytes", [1, 60, 1 << 22])
@pytest.mark.parametrize(
    "index", [None, np.s_[2:9, :], np.s_[:, 3:6], np.s_[10:, 6:], np.s_[4:4, :], np.s_[0:11, 0:7]]
)
@pytest.mark.parametrize("dtype", [None, np.float64, jnp.bfloat16])
def test_a_part_of_a_tensor_equals_numpys_for_any_block_size(
    folder, block_bytes, index, dtype, monkeypatch
):
    monkeypatch.setattr(stored_lib, "BLOCK_BYTES", block_bytes)
    stored = tensors.open_folder(folder)["matrix"]
    assert (stored.shape, stored.dtype, stored.nbytes) == ((11, 7), np.float32, 308)
    whole = VALUES["matrix"].astype(dtype or np.float32)
    wanted = whole if index is None else whole[index]
    part = stored.read(index, dtype)
    assert part.dtype == wanted.dtype
    np.testing.assert_array_equal(part, wanted)
    turned = stored.read(None if index is None else index[::-1], dtype, transposed=True)
    np.testing.assert_array_equal(turned, wanted.T)
    assert turned.flags.c_contiguous


def test_a_part_of_a_vector_can_be_read(folder, monkeypatch):
    monkeypatch.setattr(stored_lib, "BLOCK_BYTES", 4)
    part = tensors.open_folder(folder)["vector"].read(np.s_[3:8,])
    np.testing.assert_array_equal(part, VALUES["vector"][3:8])


def test_skipped_tensors_are_not_returned(folder):
    assert tensors.open_folder(folder, ["decoder."]).keys() == {"matrix", "vector"}


def test_a_tensor_is_read_only_when_it_is_needed(folder):
    stored = tensors.open_folder(folder)["matrix"]
    save_file(VALUES | {"matrix": VALUES["matrix"] + 1}, folder / tensors.WEIGHTS)
    np.testing.assert_array_equal(stored.read(), VALUES["matrix"] + 1)


def test_shards_are_read_through_their_index(folder):
    shard(folder, {"matrix": 1, "vector": 2, "decoder.matrix": 2})
    found = tensors.open_folder(folder)
    for name, value in VALUES.items():
        np.testing.assert_array_equal(found[name].read(), value)


def raises_one_line(folder, *parts):
    with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
        tensors.open_folder(folder)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 990345061\n"
BAD = {
    "a web page": (b"<!DOCTYPE html>\n<html><body>401</body></html>", "download the file itself"),
    "a git-lfs pointer": (LFS, "git lfs pull"),
    "a pickle of PyTorch": (b"\x80\x02}q\x00.", "pytorch_model.bin"),
    "a pickle of PyTorch,": (b"PK\x03\x04" + bytes(100), "save_pretrained"),
    "it is empty": (b"", "download it again"),
    "damaged": (bytes(range(1, 200)), "download again"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_of_another_kind_is_recognised_in_the_error(folder, what):
    content, remedy = BAD[what]
    (folder / tensors.WEIGHTS).write_bytes(content)
    raises_one_line(folder, str(folder / tensors.WEIGHTS), what, remedy)


@pytest.mark.parametrize("keep", [4, 60, -1])
def test_a_truncated_file_is_called_damaged(folder, keep):
    file = folder / tensors.WEIGHTS
    file.write_bytes(file.read_bytes()[:keep])
    raises_one_line(folder, str(file), "cut short", "download again")


@pytest.mark.parametrize("length", [0x280, 0x10280])
def test_a_safetensors_length_that_looks_like_a_pickle_is_not_taken_for_one(folder, length):
    file = folder / tensors.WEIGHTS
    file.write_bytes(length.to_bytes(8, "little") + b'{"matrix":')
    raises_one_line(folder, str(file), "cut short", "download again")


@pytest.mark.parametrize("what", ["a web page", "a git-lfs pointer", "it is empty"])
def test_an_index_of_another_kind_is_recognised_in_the_error(folder, what):
    (folder / tensors.WEIGHTS).unlink()
    (folder / tensors.INDEX).write_bytes(BAD[what][0])
    raises_one_line(folder, tensors.INDEX, "not JSON", what)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[]", "holds a JSON list"),
        ("{}", "no weight_map"),
        ('{"weight_map": {"a": "../b.safetensors"}}', "want a file name"),
        ('{"weight_map": {"a": 3}}', "want a file name"),
        ('{"weight_map": {"a": "b.bin"}}', "of another format"),
        ('{"weight_map": {"a": "b.safetensors"}}', "b.safetensors: named by"),
    ],
)
def test_an_invalid_index_is_refused(folder, text, part):
    (folder / tensors.WEIGHTS).unlink()
    (folder / tensors.INDEX).write_text(text)
    raises_one_line(folder, part, tensors.INDEX)


def test_a_tensor_in_the_wrong_shard_is_named_with_the_file_of_the_index(folder):
    index = shard(folder, {"matrix": 1, "vector": 2, "decoder.matrix": 2})
    index["weight_map"]["matrix"] = "model-00002-of-00002.safetensors"
    index["weight_map"]["vector"] = "model-00001-of-00002.safetensors"
    (folder / tensors.INDEX).write_text(json.dumps(index))
    raises_one_line(folder, "model-00002-of-00002.safetensors: tensor matrix is not in it")


def test_a_tensor_of_integers_is_named_in_the_error(folder):
    save_file({"scale": np.ones(3, np.int8)}, folder / tensors.WEIGHTS)
    raises_one_line(folder, "tensor scale is I8, want one of F64, F32, F16, BF16")


def test_a_file_that_cannot_be_opened_is_refused(folder):
    (folder / tensors.WEIGHTS).unlink()
    (folder / tensors.WEIGHTS).mkdir()
    raises_one_line(folder, str(folder / tensors.WEIGHTS), "cannot be read")


def test_the_error_for_a_folder_without_weights_lists_its_other_formats(tmp_path):
    (tmp_path / "tf_model.h5").write_bytes(b"")
    raises_one_line(tmp_path, str(tmp_path), "tf_model.h5 cannot be read", "save_pretrained")


def test_a_bin_file_without_pytorch_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / tensors.TORCH_WEIGHTS).write_bytes(b"PK\x03\x04")
    monkeypatch.setitem(sys.modules, "torch", None)
    raises_one_line(tmp_path, tensors.TORCH_WEIGHTS, "pip install torch", "safetensors")


class TestBinFiles:
    """Files of PyTorch, if it is installed."""

    pytestmark = pytest.mark.peers

    @pytest.fixture(autouse=True)
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.fixture
    def values(self, torch):
        return {
            "matrix": torch.from_numpy(VALUES["matrix"]),
            "half": torch.arange(6).reshape(2, 3).to(torch.bfloat16),
            "decoder.count": torch.ones(2, dtype=torch.int64),
        }

    def test_its_tensors_are_read_in_parts(self, torch, values, tmp_path):
        torch.save(values, tmp_path / tensors.TORCH_WEIGHTS)
        found = tensors.open_folder(tmp_path, ["decoder."])
        assert found.keys() == {"matrix", "half"}
        part = found["matrix"].read(np.s_[1:3, 2:9], np.float64, transposed=True)
        np.testing.assert_array_equal(part, VALUES["matrix"].T[1:3, 2:9])
        assert found["half"].dtype == jnp.bfloat16
        np.testing.assert_array_equal(found["half"].read()[1], np.array([3, 4, 5], jnp.bfloat16))

    def test_shards_are_read_through_their_index(self, torch, values, tmp_path):
        name = "pytorch_model-0000{}-of-00002.bin".format
        of = {"matrix": name(1), "half": name(2)}
        for tensor, file in of.items():
            torch.save({tensor: values[tensor]}, tmp_path / file)
        (tmp_path / tensors.TORCH_INDEX).write_text(json.dumps({"weight_map": of}))
        np.testing.assert_array_equal(
            tensors.open_folder(tmp_path)["matrix"].read(), VALUES["matrix"]
        )
        (tmp_path / name(2)).unlink()
        raises_one_line(tmp_path, name(2), "missing")

    def test_safetensors_come_first(self, torch, values, tmp_path):
        torch.save(values, tmp_path / tensors.TORCH_WEIGHTS)
        save_file(VALUES, tmp_path / tensors.WEIGHTS)
        assert tensors.open_folder(tmp_path).keys() == VALUES.keys()

    def test_a_pickle_that_would_run_something_is_refused_and_does_not_run(self, torch, tmp_path):
        mark = tmp_path / "ran"

        class Bomb:
            def __reduce__(self):
                return (mark.touch, ())

        torch.save({"matrix": Bomb()}, tmp_path / tensors.TORCH_WEIGHTS)
        raises_one_line(tmp_path, tensors.TORCH_WEIGHTS, "more than tensors", "trust")
        assert not mark.exists()

    def test_a_file_of_an_old_pytorch_says_how_to_write_it_anew(self, torch, values, tmp_path):
        file = tmp_path / tensors.TORCH_WEIGHTS
        torch.save(values, file, _use_new_zipfile_serialization=False)
        raises_one_line(tmp_path, tensors.TORCH_WEIGHTS, "before 1.6", "torch.save(x, FILE)")

    def test_a_truncated_file_and_other_kinds_are_told(self, torch, values, tmp_path):
        file = tmp_path / tensors.TORCH_WEIGHTS
        torch.save(values, file)
        file.write_bytes(file.read_bytes()[:-200])
        raises_one_line(tmp_path, tensors.TORCH_WEIGHTS, "damage")
        file.write_bytes(LFS)
        raises_one_line(tmp_path, tensors.TORCH_WEIGHTS, "git lfs pull")
        torch.save([1], file)
        raises_one_line(tmp_path, tensors.TORCH_WEIGHTS, "holds a list")
        torch.save(values, file)
        raises_one_line(tmp_path, "decoder.count is torch.int64")
