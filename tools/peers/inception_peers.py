"""torch-fidelity's Inception-v3 of 2015 with random weights.

Needs requirements-peers.txt, and torch-fidelity, which the Makefile installs without torchvision.
"""

from unittest import mock

import numpy as np
import torch

from tools.inputs import random_tensors
from tools.peers.metric_peers import feature_extractor_inceptionv3, interpolate_compat_tensorflow

LAYERS = ("64", "192", "768", "2048", "logits_unbiased")
# A side with which the last maps have 3 x 3 places, so that pools there differ from the identity.
SMALL_PX = 139


def network(seed: int, layers: tuple[str, ...] = LAYERS) -> torch.nn.Module:
    """The network, with the random weights of a seed."""
    nothing = mock.patch.object(torch.nn.Module, "load_state_dict")
    download = mock.patch.object(feature_extractor_inceptionv3, "load_state_dict_from_url")
    with nothing, download:
        net = feature_extractor_inceptionv3.FeatureExtractorInceptionV3("random", list(layers))
    net.load_state_dict({name: torch.from_numpy(x) for name, x in tensors(seed, net).items()})
    return net


def shapes() -> dict[str, tuple[int, ...]]:
    """The shapes of PyTorch's tensors by name."""
    return _shapes(network(0))


def _shapes(net: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def tensors(seed: int, net: torch.nn.Module) -> dict[str, np.ndarray]:
    """The random weights of a seed for a network."""
    return random_tensors.weights(seed, _shapes(net))


def answer(seed: int, pictures: np.ndarray, side_px: int) -> dict[str, np.ndarray]:
    """Every layer of LAYERS by name, for pictures that are resized to a side."""
    net = network(seed)
    net.INPUT_IMAGE_SIZE = side_px
    with torch.inference_mode():
        found = net(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()))
    return {
        name: np.ascontiguousarray(value.numpy()) for name, value in zip(LAYERS, found, strict=True)
    }


def resized(pictures: np.ndarray, side_px: int) -> np.ndarray:
    """Pictures at another size, as TensorFlow 1 resized them."""
    x = torch.from_numpy(pictures.transpose(0, 3, 1, 2).astype(np.float32))
    made = interpolate_compat_tensorflow.interpolate_bilinear_2d_like_tensorflow1x(
        x, size=(side_px, side_px), align_corners=False
    )
    return np.ascontiguousarray(made.numpy().transpose(0, 2, 3, 1))
