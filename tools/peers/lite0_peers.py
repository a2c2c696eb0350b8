"""EfficientNet-lite0 in PyTorch with random weights, of the package efficientnet-lite-pytorch.

Needs requirements-peers.txt.
"""

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet

from tools.inputs import random_tensors


def shapes() -> dict[str, tuple[int, ...]]:
    """The shapes of PyTorch's tensors by name."""
    network = EfficientNet.from_name("efficientnet-lite0")
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def answer(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(features [b d], logits [b k]) of the random weights and pictures of a seed."""
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    weights = random_tensors.weights(seed, shapes())
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    x = torch.from_numpy(random_tensors.pictures(seed).transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        pooled = network.extract_features(x).mean(dim=(2, 3))
        return pooled.numpy(), network(x).numpy()
