"""Reads files of PyTorch before 1.6 without PyTorch and without running any code.

Such a file is a row of pickles, the last of which lists storages, followed by the numbers of each
storage. The pickles are read by an unpickler that knows only tensors and dictionaries.
"""

import collections
import io
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffjax.encoders.torch_archive import STORAGES, Kind, tensor_of
from diffjax.encoders.unreadable import cannot_read, first_line

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Storage(NamedTuple):
    """A storage whose numbers come later in the file."""

    key: str
    dtype: np.dtype
    length: int


class Described(NamedTuple):
    """A tensor, by its place in a storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read(file: Path) -> dict[str, np.ndarray]:
    """The tensors by name.

    Raises:
      ValueError: the file is damaged, of another kind, or its pickle holds more than tensors.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise cannot_read(file, error) from None
    try:
        return _tensors(io.BytesIO(data))
    except Exception as error:  # pickle and NumPy raise many types of errors
        raise ValueError(
            f"{file}: more than tensors in it, or damage ({first_line(error)}): get it again from "
            "a source that you trust"
        ) from None


def _tensors(stream: io.BytesIO) -> dict[str, np.ndarray]:
    start = [_Unpickler(stream).load() for _ in range(3)]
    if start[:2] != [MAGIC, PROTOCOL] or not start[2].get("little_endian"):
        raise ValueError("does not begin as such files do")
    described, keys = _Unpickler(stream).load(), _Unpickler(stream).load()
    if not isinstance(described, dict):
        raise ValueError(f"holds a {type(described).__name__}, want tensors by name")
    wanted: dict[str, Storage] = {}
    for name, tensor in described.items():
        if not isinstance(tensor, Described):
            raise ValueError(f"{str(name)[:60]} is a {type(tensor).__name__}, want a tensor")
        storage = tensor.storage
        if wanted.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key[:60]} is said to be two things")
    numbers: dict[str, np.ndarray] = {}
    for key in keys:
        count = int.from_bytes(stream.read(8), "little")
        if count != wanted[key].length:
            raise ValueError(f"storage {key} has {count} numbers, want {wanted[key].length}")
        dtype = wanted[key].dtype
        numbers[key] = np.frombuffer(stream.read(count * dtype.itemsize), dtype, count)
    return {
        str(name): tensor_of(numbers[one.storage.key], one.offset, one.size, one.stride)
        for name, one in described.items()
    }


class _Unpickler(pickle.Unpickler):
    """Makes descriptions of tensors, and dictionaries, alone."""

    def find_class(self, module: str, name: str) -> object:
        """What stands for a class or function of the pickle."""
        if module == "torch" and name in STORAGES:
            return Kind(STORAGES[name])
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _described
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a tensor")

    def persistent_load(self, pid: object) -> Storage:
        """A storage: ("storage", its class, key, device, count, no view of another)."""
        match pid:
            case ("storage", Kind(dtype), str(key), _, int(count), None):
                return Storage(key, dtype, count)
        raise pickle.UnpicklingError(f"{str(pid)[:60]} is no storage")


def _described(
    storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: object
) -> Described:
    return Described(storage, offset, size, stride)
