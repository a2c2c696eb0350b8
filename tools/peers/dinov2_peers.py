"""DINOv2 of transformers with random weights. Needs requirements-peers.txt."""

from typing import Any

import numpy as np
import torch
import transformers

from tools.inputs import random_tensors

# Sizes of config.json; the grid of positions has 6 x 6 patches.
SMALL: dict[str, Any] = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=3, patch_size=14,
    image_size=84,
)  # fmt: skip


def network(seed: int) -> Any:
    """The network, with the random weights of a seed."""
    net = transformers.Dinov2Model(transformers.Dinov2Config(**SMALL)).eval()
    made = random_tensors.transformer(seed, shapes(net))
    net.load_state_dict({name: torch.from_numpy(x) for name, x in made.items()})
    return net


def shapes(net: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of PyTorch's tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def answer(net: Any, x: np.ndarray) -> np.ndarray:
    """The class token [b d] of scaled pictures [b s s 3]."""
    with torch.inference_mode():
        given = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        return np.ascontiguousarray(net(pixel_values=given).pooler_output.numpy())


def interpolated(grid: np.ndarray, side: int, offset: float) -> np.ndarray:
    """A grid [i j d] of positions for `side` patches a side, as Facebook's code asks PyTorch to."""
    scale = (side + offset) / len(grid)
    x = torch.from_numpy(grid.transpose(2, 0, 1)[None].copy())
    made = torch.nn.functional.interpolate(x, scale_factor=(scale, scale), mode="bicubic")
    return np.ascontiguousarray(made[0].numpy().transpose(1, 2, 0))
