"""Opens the tensors of a checkpoint folder; they are read only when needed, and in parts.

Safetensors, in one file or in shards, are preferred. PyTorch's pickled .bin files are read only if
PyTorch is installed (torch_files.py).
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from diffjax.encoders import torch_files
from diffjax.encoders.stored import DTYPES, Box, Stored
from diffjax.encoders.unreadable import (
    TORCH_WEIGHTS,
    cannot_read,
    describe_file,
    first_line,
    read_downloaded_json,
)

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TORCH_INDEX = "pytorch_model.bin.index.json"


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
        read = torch_files.tensors_of if file.suffix == ".bin" else safetensors_file
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


def open_safetensors(folder: Path, whole: str, skip: Sequence[str] = ()) -> dict[str, Stored]:
    """The tensors in the file `whole` of a folder, or in the shards that its index names.

    Raises:
      ValueError: there is none, one is damaged, or a shard is missing. One line.
    """
    index = folder / f"{whole}.index.json"
    if (folder / whole).is_file():
        return {one.name: one for one in safetensors_file(folder / whole, tuple(skip))}
    if not index.is_file():
        pickles = sorted(file.name for file in folder.glob("*.bin"))
        only = f"; {pickles[0]} is a pickle, which may run code" if pickles else ""
        raise ValueError(f"{folder}: no {whole} and no {index.name}{only}: download it too")
    listed, tensors = _weight_map(index), {}
    for name in sorted(set(listed.values())):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: named by {index.name} but missing: download it too")
        for stored in safetensors_file(folder / name, tuple(skip)):
            if listed.get(stored.name) == name:
                tensors[stored.name] = stored
    for name, file in listed.items():
        if name not in tensors and not name.startswith(tuple(skip)):
            raise ValueError(
                f"{folder / file}: tensor {name} is not in it, though {index.name} says so: "
                "download the shards again"
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


def _index_of(files: Sequence[Path]) -> str:
    """The name of the index that lists the files; "" for a single file, which needs none."""
    if files[0].name in (WEIGHTS, TORCH_WEIGHTS):
        return ""
    return TORCH_INDEX if files[0].suffix == ".bin" else INDEX


def _weight_map(index: Path) -> dict[str, str]:
    """The name of the file of each tensor, from the index of the shards."""
    listed = read_downloaded_json(index).get("weight_map")
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


def safetensors_file(file: Path, skip: tuple[str, ...]) -> list[Stored]:
    """The tensors of a safetensors file, without those whose names start with one of `skip`.

    Raises:
      ValueError: the file is damaged or of another kind.
    """
    try:
        with safe_open(file, framework="np") as reader:
            names = [name for name in reader.keys() if not name.startswith(skip)]  # noqa: SIM118
            slices = {name: reader.get_slice(name) for name in names}
            found = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    except SafetensorError as error:
        raise ValueError(
            f"{file}: not safetensors ({first_line(error)}): {describe_file(file)}"
        ) from None
    except OSError as error:
        raise cannot_read(file, error) from None

    def window_of(name: str) -> Callable[[Box], np.ndarray]:
        def window(box: Box) -> np.ndarray:
            # The file is opened for each block: while it is open, all pages that were read stay in
            # the memory of this process.
            with safe_open(file, framework="np") as reader:
                return reader.get_slice(name)[box] if box else reader.get_tensor(name)

        return window

    tensors = []
    for name, (shape, code) in found.items():
        if code not in DTYPES:
            raise ValueError(f"{file}: tensor {name} is {code}, want one of {', '.join(DTYPES)}")
        tensors.append(Stored(file, name, shape, DTYPES[code], window_of(name)))
    return tensors
