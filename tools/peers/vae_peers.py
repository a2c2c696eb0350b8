"""Autoencoders of diffusers with random weights. Needs requirements-peers.txt."""

from typing import Any

import diffusers
import numpy as np
import torch

from tools.inputs import random_tensors

SIDE = 16
# Small networks in the layouts of Stable Diffusion's and of latent diffusion's autoencoders.
SMALL: dict[str, dict[str, Any]] = {
    "AutoencoderKL": dict(
        block_out_channels=[32, 64], down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2, layers_per_block=2, latent_channels=4,
        norm_num_groups=8, scaling_factor=0.18215,
    ),
    "VQModel": dict(
        block_out_channels=[32, 32, 64],
        down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"],
        up_block_types=["UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        layers_per_block=1, latent_channels=3, num_vq_embeddings=16, norm_num_groups=8,
    ),
}  # fmt: skip


def network(kind: str, seed: int = 0, **sizes: Any) -> Any:
    """The network with the random weights of a seed."""
    net = getattr(diffusers, kind)(**{**SMALL[kind], **sizes}).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    made = random_tensors.transformer(seed, shapes)
    net.load_state_dict({name: torch.from_numpy(x) for name, x in made.items()})
    return net


def pictures(side: int = SIDE) -> np.ndarray:
    """Two pictures [b h w 3] in [-1, 1]."""
    return random_tensors.pictures(0)[:, :side, :side]


def answers(kind: str, net: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """`encoded` [b i j zz], and `decoded` [b h w 3] from its means, or from its nearest codes."""
    with torch.inference_mode():
        given = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        if kind == "VQModel":
            encoded = net.encode(given).latents
            decoded = net.decode(encoded).sample
        else:
            encoded = net.encode(given).latent_dist.parameters
            decoded = net.decode(encoded.chunk(2, dim=1)[0]).sample
    last = lambda t: np.ascontiguousarray(t.numpy().transpose(0, 2, 3, 1))  # noqa: E731
    return {"encoded": last(encoded), "decoded": last(decoded)}
