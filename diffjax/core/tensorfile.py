"""Safetensors files with a checksum: a file is written completely or not at all.

The metadata hold "sha256", the hash of the file with 64 zeros in the place of that hash. So it
covers the names and shapes too. Any reader of safetensors can read these files. Arrays of
bytes with scales (`int8.pack`) are read in float32.
"""

import contextlib
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from diffjax.core import int8
from diffjax.core.files import publish
from diffjax.core.trees import PyTree, map_named, named_leaves

BLOCK_BYTES = 1 << 22
UNKNOWN = "0" * 64
CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Promise:
    """An array that is computed only when it is written, so that few are in memory at a time."""

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]


def write(
    path: Path, tensors: Mapping[str, np.ndarray | Promise], metadata: Mapping[str, str]
) -> str:
    """Write all tensors to `path`, in place of an older file; returns the sha256.

    Raises:
      OSError: the disk is full or fails. The older file is unchanged, and no other is left.
      ValueError: a `Promise` returned an array of another shape or dtype.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The widest dtypes come first, so that each tensor is aligned to its item size.
    order = sorted(tensors, key=lambda name: (-np.dtype(tensors[name].dtype).itemsize, name))
    header = _header({name: tensors[name] for name in order}, {**metadata, "sha256": UNKNOWN})
    temporary = path.with_name(f".{path.name}.tmp")
    digest = hashlib.sha256()
    try:
        with open(temporary, "wb") as file:
            for block in _blocks(header, [tensors[name] for name in order]):
                digest.update(block)
                file.write(block)
            file.seek(_digest_offset(header))
            file.write(digest.hexdigest().encode())
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return digest.hexdigest()


def verify(path: Path) -> dict[str, str]:
    """Check every byte of a file against its sha256; returns its metadata.

    Raises:
      ValueError: the file is damaged, or was not made by `write`.
      OSError: the file cannot be read.
    """
    metadata = read_metadata(path)
    expected = metadata.get("sha256", "")
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        start = file.read(8)
        header = start + file.read(int.from_bytes(start, "little"))
        offset = header.find(expected.encode()) if len(expected) == 64 else -1
        if offset < 0:
            raise ValueError(f"{path}: no sha256 in its metadata: not written by diffjax")
        digest.update(header[:offset] + UNKNOWN.encode() + header[offset + 64 :])
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise ValueError(
            f"{path}: damaged: its sha256 is {digest.hexdigest()}, its metadata say {expected}"
        )
    return metadata


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata that `write` was given, and "sha256".

    Raises:
      ValueError: it is not a safetensors file.
    """
    with _opened(path) as reader:
        return reader.metadata() or {}


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, by name; scales are a part of theirs."""
    with _opened(path) as reader:
        names = list(reader.keys())
        scales = {f"{name}{int8.SUFFIX}" for name in int8.scaled(names)}
        return {n: tuple(reader.get_slice(n).get_shape()) for n in names if n not in scales}


def read(path: Path, name: str) -> np.ndarray:
    """One tensor, in the dtype of the file; in float32 if it has scales."""
    with _opened(path) as reader:
        found = reader.get_tensor(name)
        if name in int8.scaled(reader.keys()):
            return int8.unpack(found, reader.get_tensor(f"{name}{int8.SUFFIX}"))
        return found


def promised(path: Path, prefix: str) -> dict[str, Promise]:
    """The tensors whose names begin so, to be read when they are written elsewhere."""
    with _opened(path) as reader:
        parts = {n: reader.get_slice(n) for n in reader.keys() if n.startswith(prefix)}  # noqa: SIM118
        kinds = {code: name for name, code in CODES.items()}
        return {
            name: Promise(
                tuple(part.get_shape()), np.dtype(kinds[part.get_dtype()]),
                functools.partial(read, path, name),
            )
            for name, part in parts.items()
        }  # fmt: skip


def read_tree(
    path: Path, like: PyTree, ignored: str | None = None
) -> tuple[PyTree, dict[str, str]]:
    """(the tensors as a tree with the structure and dtypes of `like`, the metadata of the file).

    `like` is a tree of arrays or shapes. The name of a tensor is its path in the tree, such as
    down_0/conv/kernel. ignored: how the names begin of tensors that belong to something else.

    Raises:
      ValueError: the file is damaged, or has other names or shapes than `like`.
    """
    metadata = read_metadata(path)
    if "sha256" in metadata:  # files of other programs have none
        verify(path)
    have = shapes(path)
    if ignored is not None:
        have = {name: shape for name, shape in have.items() if not name.startswith(ignored)}
    want = {name: tuple(leaf.shape) for name, leaf in named_leaves(like).items()}
    for name in sorted(have.keys() | want.keys()):
        there, here = have.get(name, "missing"), want.get(name, "missing")
        if there != here:
            raise ValueError(f"{path}: {name} is {there} in the file and {here} in the model")
    return map_named(lambda name, leaf: read(path, name).astype(leaf.dtype), like), metadata


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="np") as reader:
            yield reader
    except SafetensorError as error:
        line = (str(error).strip().splitlines() or ["?"])[0][:160]
        raise ValueError(f"{path}: damaged: not safetensors ({line})") from None


def _header(tensors: Mapping[str, np.ndarray | Promise], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a safetensors file: the length of the JSON and the JSON, padded to 8."""
    entries: dict = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        dtype = np.dtype(tensor.dtype)
        start, end = end, end + math.prod(tensor.shape) * dtype.itemsize
        entries[name] = {
            "dtype": CODES[dtype.name], "shape": list(tensor.shape), "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _digest_offset(header: bytes) -> int:
    return header.index(b'"sha256":"' + UNKNOWN.encode()) + len(b'"sha256":"')


def _blocks(header: bytes, tensors: list[np.ndarray | Promise]) -> Iterator[bytes | memoryview]:
    yield header
    for tensor in tensors:
        array = tensor.make() if isinstance(tensor, Promise) else tensor
        if array.dtype != tensor.dtype or array.shape != tensor.shape:
            raise ValueError(f"{array.dtype}{array.shape} was made where {tensor} was promised")
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for start in range(0, flat.size, BLOCK_BYTES):
            yield flat[start : start + BLOCK_BYTES].data
