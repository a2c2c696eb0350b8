"""Random weights and pictures for LPIPS, equal on every machine."""

from pathlib import Path

import numpy as np

from diffjax.models.perceptual import VGG16
from tools.inputs import random_tensors

GOLDEN = Path(__file__).resolve().parents[2] / "tests/golden/lpips.json"


def shapes() -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """The shapes of (VGG16's, the linear) tensors by name."""
    network: dict[str, tuple[int, ...]] = {}
    channels, index = 3, 0
    for widths in VGG16:
        for width in widths:
            network[f"features.{index}.weight"] = (width, channels, 3, 3)
            network[f"features.{index}.bias"] = (width,)
            channels, index = width, index + 2
        index += 1
    return network, {f"lin{i}.model.1.weight": (1, w[-1], 1, 1) for i, w in enumerate(VGG16)}


def inputs() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """(VGG16's tensors, the linear ones, which are positive, two pictures, two others)."""
    network, linear = shapes()
    made = random_tensors.weights(0, network)
    weights = {name: np.abs(x) for name, x in random_tensors.weights(1, linear).items()}
    a, b = random_tensors.pictures(0)[:, :32, :32], random_tensors.pictures(3)[:, :32, :32]
    return made, weights, a, b
