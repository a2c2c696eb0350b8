"""The extractor of FID: Inception-v3 of 2015, from the file of torch-fidelity or pytorch-fid.

The files pt_inception-2015-12-05-6726825d.pth and weights-inception-2015-12-05-6726825d.pth hold
TensorFlow's weights (Apache-2.0). They are read without PyTorch and never downloaded.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from diffjax.core.errors import InputError
from diffjax.core.trees import Params
from diffjax.encoders import foreign
from diffjax.evaluation.extractors.extractor import Extractor
from diffjax.models.inception import CLASSES, EPSILON, FEATURES, SIDE_PX, Inception

RESIZE = f"bilinear of TensorFlow 1, {SIDE_PX} px"
LAYER = re.compile(r"(\w+(?:\.\w+)?)\.(conv\.weight|bn\.\w+)")
NORM = ("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")


def load(file: Path) -> Extractor:
    """The extractor with the weights of a file. `classes` makes the logits of an Inception score.

    Raises:
      InputError: there is no file, or it is damaged or of another network.
    """
    tensors = foreign.read_torch(file)
    try:
        params = from_torch(tensors)
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None
    x = jnp.zeros((1, SIDE_PX, SIDE_PX, 3))
    wanted = jax.eval_shape(Inception().init, jax.random.key(0), x)["params"]
    foreign.check_shapes(params, wanted, file, "the Inception of FID")
    name = f"inception-v3 of 2015 pool3, weights {foreign.digest([file])}"
    kernel = np.asarray(params["fc"]["kernel"])
    assert kernel.shape == (FEATURES, CLASSES)
    return Extractor(name, RESIZE, FEATURES, "fid", params, pool3, kernel)


def pool3(params: Params, pictures: UInt8[Array, "b h w c"]) -> Float[Array, "b d"]:
    """The means over all places of the last convolution, at least 0."""
    return Inception().apply({"params": params}, prepared(pictures))[0].of_2048


def prepared(pictures: UInt8[Array, "b h w c"], side_px: int = SIDE_PX) -> Float[Array, "b s s c"]:
    """(x - 128) / 128 of bytes, after pictures were resized as TensorFlow 1 did."""
    return (resized(pictures.astype(jnp.float32), side_px) - 128) / 128


def resized(x: Float[Array, "b h w c"], side_px: int) -> Float[Array, "b s s c"]:
    """Bilinear interpolation, in which pixel i of the result is at i size / side_px.

    So neither the corners nor the centres of both grids fall together, the last rows and columns
    are repeated, and shrinking takes no average: all that is part of FID.
    """
    low, high, share = _places(x.shape[2], side_px)
    x = x[:, :, low] + (x[:, :, high] - x[:, :, low]) * share[:, None]
    low, high, share = _places(x.shape[1], side_px)
    return x[:, low] + (x[:, high] - x[:, low]) * share[:, None, None]


def _places(
    size_px: int, side_px: int
) -> tuple[Int[np.ndarray, " s"], Int[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """(the pixel before each place, the one after it, how far it is from the first)."""
    places = np.arange(side_px, dtype=np.float32) * np.float32(size_px / side_px)
    low = places.astype(np.int32)
    return low, np.minimum(low + 1, size_px - 1), places - low


def from_torch(tensors: Mapping[str, np.ndarray]) -> Params:
    """Parameters of `Inception` from PyTorch's tensors, without the biases of the classes.

    Raises:
      ValueError: a tensor is missing, or not of this network.
    """
    layers: dict[str, dict[str, np.ndarray]] = {}
    flat: dict[tuple[str, ...], np.ndarray] = {}
    for name, tensor in tensors.items():
        if name == "fc.weight":
            flat["fc", "kernel"] = np.asarray(tensor.T, np.float32)
        elif match := LAYER.fullmatch(name):
            layers.setdefault(match[1], {})[match[2]] = tensor
        elif name != "fc.bias":
            raise ValueError(f"tensor {name} is not of the Inception of FID")
    for layer, parts in layers.items():
        for part in ("conv.weight", *NORM):
            if part not in parts:
                raise ValueError(f"tensor {layer}.{part} is missing")
        path = tuple(layer.split("."))
        kernel, bias = folded(*(parts[part] for part in ("conv.weight", *NORM)))
        flat |= {(*path, "kernel"): kernel, (*path, "bias"): bias}
    return foreign.nested(flat)


def folded(
    kernel: Float[np.ndarray, "d c i j"],
    scale: Float[np.ndarray, " d"],
    shift: Float[np.ndarray, " d"],
    mean: Float[np.ndarray, " d"],
    variance: Float[np.ndarray, " d"],
) -> tuple[Float[np.ndarray, "i j c d"], Float[np.ndarray, " d"]]:
    """One convolution for two: scale (k x - mean) / (variance + eps)^1/2 + shift = k' x + b'."""
    gain = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + EPSILON)
    turned = kernel.transpose(2, 3, 1, 0) * gain
    return turned.astype(np.float32), (shift - mean * gain).astype(np.float32)
