"""Opens the tensors of a checkpoint folder; they are read only when needed, and in parts.

Safetensors, in one file or in shards, are preferred. PyTorch's pickled .bin files are read only if
PyTorch is installed, by its restricted loader, which makes tensors and runs no other code.
"""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from safetensors import SafetensorError, safe_open

from diffjax.core.files import parse_json
from diffjax.core.json_types import JsonObject

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TORCH_WEIGHTS, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
# Bytes read at once: enough for the full speed of the disk, and little beside a tensor.
BLOCK_BYTES = 1 << 22
DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}

Box = tuple[slice, ...]


@runtime_checkable
class TorchTensor(Protocol):
    """The part of PyTorch's tensors that is used to read them."""

    dtype: object

    def __getitem__(self, box: Box, /) -> "TorchTensor":
        """A part of the tensor."""

    def detach(self) -> "TorchTensor":
        """Without the graph of gradients."""

    def contiguous(self) -> "TorchTensor":
        """With its numbers in order."""

    def view(self, dtype: object, /) -> "TorchTensor":
        """With its bits taken as another dtype."""

    def numpy(self) -> np.ndarray:
        """As a NumPy array."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in `file`. `window(box)` reads a part; the slices of `box` have start and stop."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    window: Callable[[Box], np.ndarray]

    @property
    def nbytes(self) -> int:
        """The size of the tensor in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def block_rows(self) -> int:
        """How many rows, along the first axis, are read at once."""
        return max(1, BLOCK_BYTES * (self.shape or (1,))[0] // max(self.nbytes, 1))

    def read(
        self, index: Box | None = None, dtype: DTypeLike | None = None, transposed: bool = False
    ) -> np.ndarray:
        """The part `index` of the tensor, or of its transpose, in `dtype` (None: as stored).

        Beside the result only one block of a few MB is in memory, because the tensor is cast and
        transposed block by block.
        """
        order = -1 if transposed else 1
        index = index or (slice(None),) * len(self.shape)
        box = [range(*s.indices(n)) for s, n in zip(index[::order], self.shape, strict=True)]
        out = np.empty([len(r) for r in box][::order], dtype or self.dtype)
        stored_order = out.T if transposed else out
        step = self.block_rows
        columns = tuple(slice(r.start, r.stop) for r in box[1:])
        for i in range(0, len(box[0]), step):
            rows = slice(box[0].start + i, min(box[0].start + i + step, box[0].stop))
            stored_order[i : i + step] = self.window((rows, *columns))
        return out


def open_folder(path: str | os.PathLike, skip: Sequence[str] = ()) -> dict[str, Stored]:
    """The tensors of the folder by name, without those whose names start with one of `skip`.

    Raises:
      ValueError: a file is missing, damaged or of another kind, or the index names the wrong file
        for a tensor. The message is one line that names the file and says what to do.
    """
    folder = Path(path)
    files = weight_files(folder)
    listed = _weight_map(folder / _index_of(files)) if _index_of(files) else None
    tensors: dict[str, Stored] = {}
    for file in files:
        read = _torch_file if file.suffix == ".bin" else _safetensors_file
        for stored in read(file, tuple(skip)):
            if listed is not None and listed.get(stored.name, file.name) != file.name:
                continue  # a second copy: only the file that the index names is used
            tensors[stored.name] = stored
    for name, file_name in (listed or {}).items():
        if name not in tensors and not name.startswith(tuple(skip)):
            raise ValueError(
                f"{folder / file_name}: tensor {name} is not in it, though {_index_of(files)} "
                "says so: the shards belong to different checkpoints, download them again"
            )
    return tensors


def weight_files(path: str | os.PathLike) -> list[Path]:
    """The files of a folder that hold its tensors, in order.

    Raises:
      ValueError: there are none, or one is missing.
    """
    folder = Path(path)
    for whole, index in ((WEIGHTS, INDEX), (TORCH_WEIGHTS, TORCH_INDEX)):
        if (folder / whole).exists():
            return [folder / whole]
        if (folder / index).exists():
            names = sorted(set(_weight_map(folder / index).values()))
            for name in names:
                if not (folder / name).exists():
                    raise ValueError(
                        f"{folder / name}: named by {index} but missing: download it too"
                    )
            return [folder / name for name in names]
    others = sorted(f.name for f in folder.glob("*") if f.suffix in (".h5", ".msgpack", ".ckpt"))
    raise ValueError(
        f"{folder}: no {WEIGHTS}, {INDEX}, {TORCH_WEIGHTS} or {TORCH_INDEX}"
        + (f"; {', '.join(others)} cannot be read" if others else "")
        + ": want a checkpoint that transformers' save_pretrained wrote"
    )


def read_json(file: Path) -> JsonObject:
    """The JSON object in a file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read or holds no JSON object; the message names the file.
    """
    try:
        value = parse_json(file.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(file, error) from None
    except ValueError as error:  # neither JSON nor text
        raise ValueError(f"{file}: not JSON ({_line(error)}): {describe_file(file)}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file}: holds a JSON {type(value).__name__}, want an object")
    return value


def describe_file(file: Path) -> str:
    """What an unreadable file seems to be, judged by its first bytes, and what to do about it."""
    try:
        with open(file, "rb") as stream:
            head = stream.read(512)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, run `git lfs pull` in its folder"
    if head.lstrip().startswith(b"<"):
        return "it is a web page, download the file itself (a gated model needs a login first)"
    # The second byte of a pickle is its protocol. A safetensors file may begin with the same bytes,
    # as its length; its ninth byte is {.
    pickled = re.match(rb"\x80[\x02-\x05][^\0]", head) and head[8:9] != b"{"
    if (pickled or head.startswith(b"PK\x03\x04")) and file.suffix != ".bin":
        return (
            f"it is a pickle of PyTorch, which may run code: rename it to {TORCH_WEIGHTS}, so that "
            "only its tensors are read, or convert it with transformers' save_pretrained"
        )
    return "it is empty, download it again" if not head else "damaged or cut short, download again"


def import_torch(file: str | os.PathLike) -> ModuleType:
    """The module torch, which is needed to read `file`.

    Raises:
      ValueError: PyTorch is not installed; the message says what to do.
    """
    try:
        import torch
    except ImportError:
        raise ValueError(
            f"{file}: a pickle that only PyTorch can read: pip install torch, or convert it to "
            "safetensors with transformers' save_pretrained"
        ) from None
    return torch


def _index_of(files: Sequence[Path]) -> str:
    """The name of the index that lists the files; "" for a single file, which needs none."""
    if files[0].name in (WEIGHTS, TORCH_WEIGHTS):
        return ""
    return TORCH_INDEX if files[0].suffix == ".bin" else INDEX


def _weight_map(index: Path) -> dict[str, str]:
    """The name of the file of each tensor, from the index of the shards."""
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise ValueError(f"{index}: no weight_map in it: not an index of shards")
    files: dict[str, str] = {}
    for name, file in listed.items():
        # The index may come from anywhere, so it may only name files of its own folder.
        if not isinstance(file, str) or Path(file).name != file:
            raise ValueError(f"{index}: tensor {name} is said to be in {file!r}, want a file name")
        if Path(file).suffix != Path(index.name.removesuffix(".index.json")).suffix:
            raise ValueError(f"{index}: tensor {name} is said to be in {file!r}, of another format")
        files[name] = file
    return files


def _safetensors_file(file: Path, skip: tuple[str, ...]) -> list[Stored]:
    try:
        with safe_open(file, framework="np") as reader:
            names = [name for name in reader.keys() if not name.startswith(skip)]  # noqa: SIM118
            slices = {name: reader.get_slice(name) for name in names}
            found = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    except SafetensorError as error:
        raise ValueError(
            f"{file}: not safetensors ({_line(error)}): {describe_file(file)}"
        ) from None
    except OSError as error:
        raise _unreadable(file, error) from None

    def window_of(name: str) -> Callable[[Box], np.ndarray]:
        def window(box: Box) -> np.ndarray:
            # The file is opened for each block: while it is open, all pages that were read stay in
            # the memory of this process.
            with safe_open(file, framework="np") as reader:
                return reader.get_slice(name)[box]

        return window

    tensors = []
    for name, (shape, code) in found.items():
        if code not in DTYPES:
            raise ValueError(f"{file}: tensor {name} is {code}, want one of {', '.join(DTYPES)}")
        tensors.append(Stored(file, name, shape, DTYPES[code], window_of(name)))
    return tensors


def _torch_file(file: Path, skip: tuple[str, ...]) -> list[Stored]:
    torch = import_torch(file)
    try:
        with open(file, "rb") as stream:
            zipped = stream.read(4) == b"PK\x03\x04"
        if not zipped and describe_file(file).startswith("it is"):
            raise ValueError(f"{file}: {describe_file(file)}")
        if not zipped:
            raise ValueError(
                f"{file}: damaged, or from a PyTorch before 1.6, whose files cannot be read in "
                "parts: with x = torch.load(FILE, weights_only=True), torch.save(x, FILE)"
            )
        # weights_only: only tensors are unpickled; mmap: their data are not read yet.
        tensors = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except OSError as error:
        raise _unreadable(file, error) from None
    except ValueError:
        raise
    except Exception as error:  # pickle, zipfile and PyTorch raise many types of errors
        raise ValueError(
            f"{file}: PyTorch found more than tensors in it, or damage ({_line(error)}): download "
            "it again from a source that you trust, preferably as safetensors"
        ) from None
    if not isinstance(tensors, dict):
        raise ValueError(f"{file}: holds a {type(tensors).__name__}, want tensors by name")
    dtypes = {getattr(torch, dtype.name): dtype for dtype in DTYPES.values()}

    def window_of(tensor: TorchTensor) -> Callable[[Box], np.ndarray]:
        def window(box: Box) -> np.ndarray:
            part = tensor[box].detach().contiguous()
            if part.dtype == torch.bfloat16:  # PyTorch cannot convert it to NumPy
                return part.view(torch.int16).numpy().view(jnp.bfloat16)
            return part.numpy()

        return window

    found = []
    for name, tensor in tensors.items():
        if name.startswith(skip):
            continue
        if not isinstance(tensor, torch.Tensor) or tensor.dtype not in dtypes:
            have = getattr(tensor, "dtype", type(tensor).__name__)
            raise ValueError(f"{file}: {name} is {have}, want a tensor of {', '.join(DTYPES)}")
        shape, dtype = tuple(tensor.shape), dtypes[tensor.dtype]
        found.append(Stored(file, name, shape, dtype, window_of(tensor)))
    return found


def _unreadable(file: Path, error: OSError) -> ValueError:
    return ValueError(f"{file}: cannot be read ({error.strerror or _line(error)}): check its mode")


def _line(error: Exception) -> str:
    """The first line of an error's text, cut to a readable length."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
