"""Reads the weights of networks that others trained, and refuses those of another network."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import flax.traverse_util
import numpy as np

from diffjax.core import trees
from diffjax.core.errors import InputError
from diffjax.core.trees import Params
from diffjax.encoders import torch_archive, torch_legacy

DIGITS = 16


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file of PyTorch, old or new, read without PyTorch.

    Raises:
      InputError: there is no such file, or it is damaged or holds more than tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file: want one of weights")
    try:
        reader = torch_archive if torch_archive.is_archive(path) else torch_legacy
        return reader.read(path)
    except ValueError as error:
        raise InputError(str(error)) from None


def check_shapes(params: Params, wanted: Params, path: Path, network: str) -> None:
    """Refuses parameters whose names or shapes are not the wanted ones.

    Raises:
      InputError: the message names the first that differs.
    """
    have, want = (
        {name: tuple(leaf.shape) for name, leaf in trees.named_leaves(tree).items()}
        for tree in (params, wanted)
    )
    for name in sorted(have.keys() | want.keys()):
        if have.get(name) != want.get(name):
            raise InputError(
                f"{path}: {name} is {have.get(name, 'missing')}, want {want.get(name, 'none')}: "
                f"not the weights of {network}"
            )


def digest(files: Sequence[Path]) -> str:
    """The first digits of the sha256 of the file; of several, of their sha256 in order."""
    found = []
    for file in files:
        with open(file, "rb") as stream:
            found.append(hashlib.file_digest(stream, "sha256"))
    if len(found) == 1:
        return found[0].hexdigest()[:DIGITS]
    return hashlib.sha256(b"".join(one.digest() for one in found)).hexdigest()[:DIGITS]


def nested(flat: dict[tuple[str, ...], np.ndarray]) -> Params:
    """Parameters by their paths, as a tree."""
    return flax.traverse_util.unflatten_dict(flat)
