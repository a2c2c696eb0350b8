"""Reads PyTorch's zipped files, also TorchScript's, without PyTorch and without running any code.

Such a file is a zip with a pickle, data.pkl, and a file of raw numbers for each storage. The pickle
is read by an unpickler that knows only tensors, dictionaries and empty modules; a file that asks
for anything else is refused.
"""

import collections
import io
import math
import pickle
import zipfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffjax.encoders.unreadable import cannot_read, describe_file, first_line

# The numbers of a storage, by the name of its class.
STORAGES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


class Kind(NamedTuple):
    """Stands for a class of storages."""

    dtype: np.dtype


class Module:
    """Stands for a module of TorchScript: what a pickle puts into it is kept as attributes."""


def is_archive(file: Path) -> bool:
    """Whether the file begins like a zip."""
    try:
        with open(file, "rb") as stream:
            return stream.read(4) == b"PK\x03\x04"
    except OSError as error:
        raise cannot_read(file, error) from None


def read(file: Path) -> dict[str, np.ndarray]:
    """The tensors by name; those of modules inside modules have names with dots.

    Raises:
      ValueError: the file is damaged, or its pickle holds more than tensors. One line.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = [PurePosixPath(name) for name in archive.namelist()]
            root = next(name.parent for name in names if name.name == "data.pkl")
            found = _Unpickler(archive, root).load()
    except OSError as error:
        raise cannot_read(file, error) from None
    except StopIteration:
        raise ValueError(f"{file}: no data.pkl in it: {describe_file(file)}") from None
    except Exception as error:  # pickle and zipfile raise many types of errors
        raise ValueError(
            f"{file}: more than tensors in it, or damage ({first_line(error)}): download it again "
            "from a source that you trust, preferably as safetensors"
        ) from None
    tensors = dict(_tensors(found, ""))
    if not tensors:
        raise ValueError(f"{file}: holds no tensors")
    return tensors


class _Unpickler(pickle.Unpickler):
    """Makes arrays, dictionaries and `Module`s alone."""

    def __init__(self, archive: zipfile.ZipFile, root: PurePosixPath):
        super().__init__(io.BytesIO(archive.read(str(root / "data.pkl"))))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> object:
        """What stands for a class or function of the pickle."""
        if module == "torch" and name in STORAGES:
            return Kind(STORAGES[name])
        if module == "collections" and name == "OrderedDict":
            return collections.OrderedDict
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return _tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda tensor, *rest: tensor
        if module.startswith("__torch__"):
            return Module
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a tensor")

    def persistent_load(self, pid: object) -> np.ndarray:
        """The numbers of a storage: ("storage", its class, key, device, count)."""
        match pid:
            case ("storage", Kind(dtype), str(key), _, int(count)) if (
                PurePosixPath(key).name == key
            ):
                data = self._archive.read(str(self._root / "data" / key))
                return np.frombuffer(data, dtype.newbyteorder("<"), count)
        raise pickle.UnpicklingError(f"{str(pid)[:60]} is no storage")


def _tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: object
) -> np.ndarray:
    return tensor_of(storage, offset, size, stride)


def tensor_of(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> np.ndarray:
    """A tensor of a storage. Its places are checked, because a file may name any.

    Raises:
      ValueError: its strides lead out of the storage, or it has more numbers than the storage: a
        stride of 0 could ask for all memory.
    """
    if min((offset, *size, *stride), default=0) < 0:
        raise ValueError("a tensor with negative sizes")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    count: int = math.prod(size)
    if count > len(storage) or (count and last >= len(storage)):
        raise ValueError("a tensor larger than its storage")
    steps = [step * storage.itemsize for step in stride]
    view = np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)
    return np.array(view).reshape(size)


def _tensors(value: object, name: str) -> collections.abc.Iterator[tuple[str, np.ndarray]]:
    """All tensors in dictionaries and modules, with their names."""
    if isinstance(value, np.ndarray):
        yield name, value
        return
    children = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    if isinstance(value, dict | Module):
        for key, child in children.items():
            yield from _tensors(child, f"{name}.{key}" if name else str(key))
