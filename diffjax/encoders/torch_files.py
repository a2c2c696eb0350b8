"""Reads PyTorch's .bin files, if PyTorch is installed, with its restricted loader.

That loader makes tensors and runs no other code of a file, although the files are pickles.
"""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np

from diffjax.encoders.stored import DTYPES, Box, Stored
from diffjax.encoders.unreadable import cannot_read, describe_file, first_line


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


def tensors_of(file: Path, skip: tuple[str, ...]) -> list[Stored]:
    """The tensors of a .bin file, without those whose names start with one of `skip`.

    Raises:
      ValueError: PyTorch is not installed, or the file is damaged or holds more than tensors.
    """
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
        raise cannot_read(file, error) from None
    except ValueError:
        raise
    except Exception as error:  # pickle, zipfile and PyTorch raise many types of errors
        raise ValueError(
            f"{file}: PyTorch found more than tensors in it, or damage ({first_line(error)}): "
            "download it again from a source that you trust, preferably as safetensors"
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
