"""LoRA files in the layouts of diffusers and of kohya's scripts, for any network.

A file has two tensors for each layer that it changes, `down` [r i] and `up` [o r], and the layer's
weight W [o i] becomes W + alpha / r up down. Of a convolution they are [r i h w] and [o r 1 1].
diffusers: `unet.LAYER.lora_A.weight` and `lora_B`, or older names; alpha is r. kohya:
`lora_unet_LAYER.lora_down.weight`, `lora_up` and `alpha`, with underscores for the dots of LAYER.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from diffjax.core import tensorfile
from diffjax.encoders.source import Source
from diffjax.models.layers.stacking import STACK
from diffjax.models.lora import matrix_of

Layout: TypeAlias = Literal["diffusers", "kohya"]
LAYOUTS: tuple[Layout, ...] = ("diffusers", "kohya")
# The path and the shape of a kernel of ours -> where its parts lie among the layers of others.
Sources: TypeAlias = Callable[[str, Sequence[int]], Source]

_DOWN = ("lora_A", "lora.down", "lora_down", "lora_linear_layer.down")
_UP = ("lora_B", "lora.up", "lora_up", "lora_linear_layer.up")
_END = re.compile(
    rf"(.+)\.({'|'.join(map(re.escape, (*_DOWN, *_UP)))})(?:\.default)?\.weight|(.+)\.(alpha)"
)
# The oldest names of diffusers: unet.LAYER.processor.to_q_lora.down.weight.
_PROCESSOR = re.compile(r"(.+)\.processor\.(to_\w+)_lora\.(down|up)\.weight")
_NETWORK = re.compile(r"(unet\.|lora_unet_|transformer\.|base_model\.model\.)(.+)")
_TEXT = re.compile(r"(text_encoder\w*\.|lora_te\w*?_).+")
# Other kinds of changes that files of these layouts may hold.
_OTHER = re.compile(r".*(hada_|lokr_|dora_scale|magnitude_vector|lora_mid|\.diff|oft_).*")
PICKLES = (b"PK\x03\x04", b"\x80")


class Layer(NamedTuple):
    """A change of one layer; see above."""

    down: np.ndarray
    up: np.ndarray
    alpha: float

    @property
    def rank(self) -> int:
        """r."""
        return len(self.down)

    def change(self) -> Float[np.ndarray, "o i ..."]:
        """alpha / r up down, in float64."""
        up = self.up.reshape(len(self.up), self.rank).astype(np.float64)
        down = self.down.reshape(self.rank, -1).astype(np.float64)
        made = self.alpha / self.rank * (up @ down)
        return made.reshape(len(self.up), *self.down.shape[1:])


@dataclass(frozen=True)
class LoraFile:
    """The layers of a file by their names with underscores for dots, as kohya's are.

    digest: the sha256 of the file. of_text: how many layers of a text encoder it changes as well.
    """

    path: Path
    layers: Mapping[str, Layer]
    digest: str
    metadata: Mapping[str, str]
    of_text: int = 0


def read(path: Path) -> LoraFile:
    """Reads and checks a file.

    Raises:
      ValueError: it is no LoRA file, is damaged, or holds numbers that are not finite; one line
        that names it.
      OSError: it cannot be read.
    """
    with open(path, "rb") as stream:
        if stream.read(4).startswith(PICKLES):
            raise ValueError(f"{path}: is a pickle, which may run code: want safetensors")
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    metadata = tensorfile.read_metadata(path)
    if "sha256" in metadata and "format" in metadata:
        tensorfile.verify(path)
    parts: dict[str, dict[str, np.ndarray]] = {}
    text = set[str]()
    for name in tensorfile.shapes(path):
        layer, part = _place(name, path)
        if _TEXT.fullmatch(layer):
            text.add(layer)
            continue
        network = _NETWORK.fullmatch(layer)
        flat = (network[2] if network else layer).replace(".", "_")
        array = tensorfile.read(path, name).astype(np.float32)
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} holds NaN or infinity; bring back a copy")
        if part in parts.setdefault(flat, {}):
            raise ValueError(f"{path}: {flat} is there twice")
        parts[flat][part] = array
    if not parts:
        raise ValueError(f"{path}: changes no layer of an image network: not a LoRA")
    alphas = _alphas(metadata, path)
    layers = {name: _layer(f"{path}: {name}", found, alphas) for name, found in parts.items()}
    return LoraFile(path, layers, digest, metadata, len(text))


def write(
    path: Path, layers: Mapping[str, Layer], layout: Layout, metadata: Mapping[str, str]
) -> str:
    """Writes the layers, whose names have dots; returns the sha256 of the file.

    diffusers reads no alpha from a file, so in its layout alpha / r is multiplied into `up`.

    Raises:
      OSError: the disk is full or fails.
    """
    tensors: dict[str, np.ndarray] = {}
    for name, layer in layers.items():
        if layout == "diffusers":
            scale = np.float32(layer.alpha / layer.rank)
            tensors[f"unet.{name}.lora_A.weight"] = layer.down
            tensors[f"unet.{name}.lora_B.weight"] = layer.up * scale
        else:
            key = f"lora_unet_{name.replace('.', '_')}"
            tensors[f"{key}.lora_down.weight"] = layer.down
            tensors[f"{key}.lora_up.weight"] = layer.up
            tensors[f"{key}.alpha"] = np.asarray(layer.alpha, np.float32)
    tensorfile.write(path, tensors, {"format": "pt", **metadata})
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def ours(name: str, shape: Sequence[int]) -> Source:
    """The layer of a kernel of our own networks: its path with dots."""
    layer = name.rpartition("/")[0].replace("/", ".")
    return Source((f"{layer}.weight",), (2, 3, 1, 0) if len(shape) == 4 else (1, 0))


def changes(
    file: LoraFile, shapes: Mapping[str, Sequence[int]], sources: Sources = ours
) -> dict[str, np.ndarray]:
    """What the file adds to each kernel that it changes, float64, by the kernel's path.

    shapes: of all kernels of the network.

    Raises:
      ValueError: a layer is not of this network, or its matrix has another size; one line.
    """
    left, made = dict(file.layers), {}
    for name, shape in shapes.items():
        parts = [_change(file, left, one, own, sources) for one, own in unstacked(name, shape)]
        if any(part is not None for part in parts):
            own = unstacked(name, shape)[0][1]
            whole = [np.zeros(own) if part is None else part for part in parts]
            made[name] = np.stack(whole) if len(own) < len(shape) else whole[0]
    if left:
        raise ValueError(
            f"{file.path}: {min(left)} is no layer of it, nor are {len(left) - 1} others of "
            f"{len(file.layers)}"
        )
    return made


def layers_of(
    name: str, a: np.ndarray, b: np.ndarray, shape: Sequence[int], alpha: float, sources: Sources
) -> Iterator[tuple[str, Layer]]:
    """The layers of others with the change A B of the kernel `name`, each with its name.

    a [i r], b [r o], with one more axis in front for stacked kernels. Where a kernel consists of
    several of their layers, which have the same inputs, all of them have the same A.
    """
    pieces = unstacked(name, shape)
    several = len(pieces[0][1]) < len(shape)
    for i, (one, own) in enumerate(pieces):
        down, up = (a[i].T, b[i].T) if several else (a.T, b.T)
        source = sources(one, own)
        if len(source.axes) == 4:
            height, width, inputs, _ = own
            down = down.reshape(-1, height, width, inputs).transpose(0, 3, 1, 2)
        elif source.ones == 2:
            down = down[..., None, None]
        if down.ndim == 4:
            up = up[..., None, None]
        for layer, part in zip(source.names, np.split(up, len(source.names)), strict=True):
            whole = [np.ascontiguousarray(x, np.float32) for x in (down, part)]
            yield layer.removesuffix(".weight"), Layer(whole[0], whole[1], alpha)


def unstacked(name: str, shape: Sequence[int]) -> list[tuple[str, Sequence[int]]]:
    """The path and shape of each kernel in a stack of scanned blocks; one for a single kernel."""
    parts = name.split("/")
    at = next((i for i, part in enumerate(parts) if STACK.fullmatch(part)), None)
    if at is None:
        return [(name, shape)]
    match = STACK.fullmatch(parts[at])
    assert match is not None
    numbers = range(int(match[2]), int(match[2]) + shape[0])
    names = ("/".join([*parts[:at], f"{match[1]}_{n}", *parts[at + 1 :]]) for n in numbers)
    return [(one, shape[1:]) for one in names]


def _change(
    file: LoraFile, left: dict[str, Layer], name: str, shape: Sequence[int], sources: Sources
) -> np.ndarray | None:
    """What is added to one kernel, None for nothing; its layers are taken out of `left`."""
    source = sources(name, shape)
    flat = [layer.removesuffix(".weight").replace(".", "_") for layer in source.names]
    if not any(layer in left for layer in flat):
        return None
    _, inputs, outputs = matrix_of(name, shape)
    pixels = tuple(shape[:2]) if len(source.axes) == 4 else ()
    wanted = (outputs // len(flat), inputs // max(int(np.prod(pixels)), 1), *pixels)
    parts = []
    for layer in flat:
        part = left.pop(layer).change() if layer in left else np.zeros(wanted)
        if part.ndim == 4 and not pixels and part.shape[2:] == (1, 1):
            part = part[..., 0, 0]
        if part.ndim == 2 and pixels == (1, 1):
            part = part[..., None, None]
        if part.shape != wanted:
            raise ValueError(
                f"{file.path}: {layer} changes a weight of {part.shape}, here it is {wanted}"
            )
        parts.append(part)
    joined = np.concatenate(parts)
    return joined.transpose(source.axes).reshape(shape)


def _place(name: str, path: Path) -> tuple[str, str]:
    """(the layer, "down", "up" or "alpha") of a tensor."""
    if _OTHER.fullmatch(name):
        raise ValueError(f"{path}: {name} is another kind of change than LoRA, which is not read")
    if match := _PROCESSOR.fullmatch(name):
        layer = match[2] if match[2] != "to_out" else "to_out.0"
        return f"{match[1]}.{layer}", match[3]
    match = _END.fullmatch(name)
    if match is None:
        raise ValueError(f"{path}: {name} is not of a LoRA: want names such as {_EXAMPLE}")
    if match[4]:
        return match[3], "alpha"
    return match[1], "down" if match[2] in _DOWN else "up"


_EXAMPLE = "unet.LAYER.lora_A.weight or lora_unet_LAYER.lora_down.weight"


def _layer(where: str, parts: Mapping[str, np.ndarray], alphas: Mapping[str, float]) -> Layer:
    missing = [part for part in ("down", "up") if part not in parts]
    if missing:
        raise ValueError(f"{where} lacks {' and '.join(missing)}: the file is cut or damaged")
    down, up = parts["down"], parts["up"]
    rank = len(down) if down.ndim else 0
    fits = down.ndim == up.ndim and down.ndim in (2, 4) and rank > 0 and up.shape[1] == rank
    if not fits or any(side != 1 for side in up.shape[2:]):
        raise ValueError(f"{where} has shapes {down.shape} and {up.shape}: want [r i] and [o r]")
    if "alpha" in parts:
        if parts["alpha"].size != 1:
            raise ValueError(f"{where} has an alpha of shape {parts['alpha'].shape}, want a number")
        return Layer(down, up, float(parts["alpha"].reshape(())))
    return Layer(down, up, alphas.get("alpha", float(rank)))


def _alphas(metadata: Mapping[str, str], path: Path) -> dict[str, float]:
    """The alpha of all layers, which newer files of diffusers have in their metadata."""
    text = metadata.get("lora_adapter_metadata")
    if text is None:
        return {}
    try:
        found = json.loads(text)
        own = {key.removeprefix("unet."): found[key] for key in found if key.startswith("unet.")}
        plain = not any(own.get(key) for key in ("rank_pattern", "alpha_pattern", "use_rslora"))
        alpha = float(own["lora_alpha"]) if "lora_alpha" in own else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path}: its lora_adapter_metadata are damaged") from None
    if not plain or not math.isfinite(alpha or 0.0):
        raise ValueError(f"{path}: layers of unequal ranks or alphas in its metadata are not read")
    return {} if alpha is None else {"alpha": alpha}
