"""The weights of LPIPS with VGG16, of a folder with two files that others publish.

`vgg16-397923af.pth` is PyTorch's VGG16 for ImageNet, `vgg.pth` the linear weights of the package
lpips, version 0.1. Neither is downloaded.
"""

from pathlib import Path

import numpy as np

from diffjax.core.trees import Params
from diffjax.encoders import torch_archive, torch_legacy
from diffjax.models.perceptual import VGG16

NETWORK, LINEAR = "vgg16-397923af.pth", "vgg.pth"


def load(folder: Path) -> Params:
    """The parameters of `perceptual.Lpips`.

    Raises:
      ValueError: a file is missing, damaged or of another network; one line.
    """
    network, linear = (_read(folder / name) for name in (NETWORK, LINEAR))
    layers, weights, channels, index = {}, {}, 3, 0
    for block, widths in enumerate(VGG16):
        for i, width in enumerate(widths):
            file, name = folder / NETWORK, f"features.{index}"
            kernel = _tensor(network, file, f"{name}.weight", (width, channels, 3, 3))
            bias = _tensor(network, file, f"{name}.bias", (width,))
            layers[f"conv_{block}_{i}"] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
            channels, index = width, index + 2  # a ReLU stands after each convolution
        index += 1  # and a maximum after each block
        name, shape = f"lin{block}.model.1.weight", (1, channels, 1, 1)
        weights[f"block_{block}"] = _tensor(linear, folder / LINEAR, name, shape).reshape(-1)
    return {"network": layers, "weights": weights}


def _read(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file: LPIPS has {NETWORK} and {LINEAR}")
    reader = torch_archive if torch_archive.is_archive(file) else torch_legacy
    return reader.read(file)


def _tensor(
    found: dict[str, np.ndarray], file: Path, name: str, shape: tuple[int, ...]
) -> np.ndarray:
    have = found[name].shape if name in found else "missing"
    if have != shape:
        raise ValueError(f"{file}: {name} is {have}, want {shape}: not the weights of LPIPS")
    return found[name]
