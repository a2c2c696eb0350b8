"""PyTorch's files before 1.6 are read without PyTorch; nothing else in them is executed."""

import pickle
import struct

import numpy as np
import pytest

from diffjax.encoders import torch_legacy

KEY = "12"
NUMBERS = np.arange(12, dtype=np.float32)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def ints(*values):
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def file(
    tmp_path, size=(2, 3), stride=(3, 1), offset=2, function="torch._utils\n_rebuild_tensor_v2"
):
    """A file with one tensor, its pickle written opcode by opcode."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(KEY) + text("cpu")
    storage += b"J" + struct.pack("<i", len(NUMBERS)) + b"NtQ"
    arguments = b"(" + storage + b"J" + struct.pack("<i", offset) + ints(*size) + ints(*stride)
    arguments += b"\x89ccollections\nOrderedDict\n)Rt"
    tensor = b"c" + function.encode() + b"\n" + arguments + b"R"
    described = b"\x80\x02ccollections\nOrderedDict\n)R(" + text("some.weight") + tensor + b"u."
    start = [torch_legacy.MAGIC, torch_legacy.PROTOCOL, {"little_endian": True}]
    parts = [pickle.dumps(value, 2) for value in start]
    parts += [described, pickle.dumps([KEY], 2), struct.pack("<q", len(NUMBERS)), NUMBERS.tobytes()]
    path = tmp_path / "some.pth"
    path.write_bytes(b"".join(parts))
    return path


def test_a_tensor_is_read_by_its_offset_and_strides(tmp_path):
    whole = torch_legacy.read(file(tmp_path))
    np.testing.assert_array_equal(whole["some.weight"], NUMBERS[2:8].reshape(2, 3))
    turned = torch_legacy.read(file(tmp_path, (3, 2), (1, 3)))["some.weight"]
    np.testing.assert_array_equal(turned, NUMBERS[2:8].reshape(2, 3).T)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(function="os\nsystem"), "os.system is no part of a tensor"),
        (dict(size=(4, 3)), "larger than its storage"),
        (dict(stride=(-3, 1)), "negative sizes"),
        (dict(size=(10**6, 10**6), stride=(0, 0)), "larger than its storage"),
    ],
)
def test_anything_but_tensors_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        torch_legacy.read(file(tmp_path, **change))
    assert "\n" not in str(caught.value)


def test_a_short_file_is_refused(tmp_path):
    path = file(tmp_path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"some\.pth: more than tensors in it, or damage"):
        torch_legacy.read(path)
