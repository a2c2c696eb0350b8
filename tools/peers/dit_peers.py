"""Diffusion transformers of diffusers with random weights. Needs requirements-peers.txt."""

from typing import Any

import diffusers
import jax.numpy as jnp
import numpy as np
import torch
from diffusers.models.attention import JointTransformerBlock

from diffjax.models.layers.embedding import sinusoids
from tools.inputs import dit_inputs


class Levels(torch.nn.Module):
    """Our sines and cosines of a log SNR, in place of theirs of a time step."""

    def forward(self, logsnr: torch.Tensor) -> torch.Tensor:
        """[b] -> [b 256]."""
        return torch.from_numpy(np.array(sinusoids(jnp.asarray(logsnr.numpy()), 256)))


def network(seed: int = 0, **sizes: Any) -> Any:
    """A DiTTransformer2DModel with the random weights of a seed; it is told a log SNR."""
    net = diffusers.DiTTransformer2DModel(**{**dit_inputs.SMALL, **sizes}).eval()
    for block in net.transformer_blocks:
        block.norm1.emb.time_proj = Levels()
    return filled(net, seed)


def joint_block(seed: int = 0, last: bool = False, qk_norm: bool = False) -> Any:
    """A block of SD3's network with the random weights of a seed."""
    norm = "rms_norm" if qk_norm else None
    block = JointTransformerBlock(**dit_inputs.JOINT, context_pre_only=last, qk_norm=norm)
    return filled(block.eval(), seed)


def filled(net: Any, seed: int) -> Any:
    """The network with random weights."""
    made = dit_inputs.tensors(seed, shapes_of(net))
    net.load_state_dict({name: torch.from_numpy(x) for name, x in made.items()})
    return net


def shapes_of(net: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of its tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def answer(net: Any, given: dict[str, np.ndarray]) -> np.ndarray:
    """The output [b h w c] of a network of `network`."""
    x_t = torch.from_numpy(given["x_t"].transpose(0, 3, 1, 2).copy())
    level, label = (torch.from_numpy(given[name]) for name in ("logsnr_t", "label"))
    with torch.inference_mode():
        said = net(x_t, timestep=level, class_labels=label.long()).sample
    return np.ascontiguousarray(said.numpy().transpose(0, 2, 3, 1))


def joint_answer(block: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Both streams after a block of `joint_block`; the text only if it goes on."""
    h, text, emb = (torch.from_numpy(given[name]) for name in ("h", "text", "emb"))
    with torch.inference_mode():
        after_text, after_h = block(hidden_states=h, encoder_hidden_states=text, temb=emb)
    after = {"h": after_h.numpy()}
    return after if after_text is None else {**after, "text": after_text.numpy()}
