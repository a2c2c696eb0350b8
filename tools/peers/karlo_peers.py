"""Karlo's networks in diffusers and transformers, random weights. Needs requirements-peers.txt."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from tools.inputs import karlo_inputs
from tools.peers import sd_peers

MADE = {
    "decoder": (UNet2DConditionModel, karlo_inputs.DECODER),
    "text_proj": (UnCLIPTextProjModel, karlo_inputs.PROJECTION),
    "super_res_first": (UNet2DModel, karlo_inputs.UPSAMPLER),
}


def networks() -> dict[str, Any]:
    """The networks by the names of their folders."""
    found = {}
    for part, (kind, config) in MADE.items():
        found[part] = filled(part, kind(**config))
    return found


def filled(part: str, net: Any) -> Any:
    """The network with the random weights of a part."""
    made = karlo_inputs.tensors(part, shapes_of(net))
    net.load_state_dict({name: torch.from_numpy(x) for name, x in made.items()})
    return net.eval()


def tower(folder: Path) -> tuple[Any, Any]:
    """(the tokenizer, the text tower); the tokenizer's files are written to `folder`."""
    tokens = sd_peers.tokenizer("sd1", folder)
    config = CLIPTextConfig(vocab_size=len(tokens), **karlo_inputs.TEXT)
    return tokens, filled("text_encoder", CLIPTextModelWithProjection(config))


def texts_answers(tokens: Any, net: Any) -> dict[str, np.ndarray]:
    """What the pipeline makes of the prompts: ids, states, vectors, and the mask of its tokens.

    The tower is given no mask, as in diffusers' UnCLIPPipeline: it sees no later token anyway.
    """
    read = tokens(karlo_inputs.PROMPTS, padding="max_length", truncation=True, return_tensors="pt")
    with torch.inference_mode():
        made = net(read.input_ids)
    return {
        "ids": read.input_ids.numpy().astype(np.int32),
        "mask": read.attention_mask.numpy().astype(bool),
        "states": made.last_hidden_state.numpy(),
        "text_vectors": made.text_embeds.numpy(),
    }


def shapes_of(net: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of its tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def answers(nets: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the decoder says of both vectors, without any, and what the upsampler says."""
    given = {name: torch.from_numpy(x) for name, x in karlo_inputs.given().items()}
    seen = torch.nn.functional.pad(given["text_mask"], (4, 0), value=True)
    found = {}
    with torch.inference_mode():
        nothing = nets["text_proj"].learned_classifier_free_guidance_embeddings.expand(2, -1)
        for name, vector in (("told", given["vector"]), ("untold", nothing)):
            tokens, added = nets["text_proj"](
                image_embeddings=vector,
                prompt_embeds=given["text_vector"],
                text_encoder_hidden_states=given["text"],
                do_classifier_free_guidance=False,
            )
            x = given["x_t"].permute(0, 3, 1, 2)
            made = nets["decoder"](
                x, given["step"], encoder_hidden_states=tokens, class_labels=added,
                attention_mask=seen,
            )  # fmt: skip
            found[name] = made.sample
        both = torch.cat([given["x_t"], given["low_res"]], -1).permute(0, 3, 1, 2)
        found["upsampled"] = nets["super_res_first"](both, given["step"]).sample
    return {k: np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy()) for k, x in found.items()}
