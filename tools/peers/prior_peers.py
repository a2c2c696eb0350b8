"""The prior of diffusers with random weights. Needs requirements-peers.txt."""

from typing import Any

import numpy as np
import torch
from diffusers import PriorTransformer

from tools.inputs import prior_inputs


def network() -> Any:
    """A small PriorTransformer with random weights."""
    net = PriorTransformer(**prior_inputs.SMALL).eval()
    made = prior_inputs.tensors(shapes_of(net))
    net.load_state_dict({name: torch.from_numpy(x) for name, x in made.items()})
    return net


def shapes_of(net: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of its tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def answers(net: Any) -> dict[str, np.ndarray]:
    """z_0 as the network says it, and as a vector of the CLIP."""
    given = {name: torch.from_numpy(x) for name, x in prior_inputs.given().items()}
    with torch.inference_mode():
        said = net(
            given["x_t"], given["step"], given["text_vector"], given["text"], given["text_mask"]
        ).predicted_image_embedding
        return {"z_0": said.numpy(), "vector": net.post_process_latents(said).numpy()}
