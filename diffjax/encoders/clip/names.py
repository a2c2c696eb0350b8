"""What the parameters of a CLIP are called by OpenAI and open_clip, and by Hugging Face."""

import re
from typing import Literal

from diffjax.encoders.source import Source

Layout = Literal["open_clip", "hugging_face"]
# The prefix of the text tower's tensors in newer files of open_clip; "" in others.
TEXT_PREFIX = "text."

_TOP: dict[Layout, dict[str, str]] = {
    "open_clip": {
        "image/patch/kernel": "visual.conv1.weight",
        "image/class_token": "visual.class_embedding",
        "image/positions": "visual.positional_embedding",
        "image/norm_in": "visual.ln_pre",
        "image/norm_out": "visual.ln_post",
        "image/projection": "visual.proj",
        "text/tokens": "token_embedding.weight",
        "text/positions": "positional_embedding",
        "text/norm_out": "ln_final",
        "text/projection": "text_projection",
        "log_scale": "logit_scale",
    },
    "hugging_face": {
        "image/patch/kernel": "vision_model.embeddings.patch_embedding.weight",
        "image/class_token": "vision_model.embeddings.class_embedding",
        "image/positions": "vision_model.embeddings.position_embedding.weight",
        "image/norm_in": "vision_model.pre_layrnorm",  # their spelling
        "image/norm_out": "vision_model.post_layernorm",
        "image/projection": "visual_projection.weight",
        "text/tokens": "text_model.embeddings.token_embedding.weight",
        "text/positions": "text_model.embeddings.position_embedding.weight",
        "text/norm_out": "text_model.final_layer_norm",
        "text/projection": "text_projection.weight",
        "log_scale": "logit_scale",
    },
}
_BLOCKS: dict[Layout, dict[str, str]] = {
    "open_clip": {
        "image": "visual.transformer.resblocks",
        "text": "transformer.resblocks",
        "attention_norm": "ln_1",
        "qkv": "attn.in_proj",
        "attention_out": "attn.out_proj",
        "feed_forward_norm": "ln_2",
        "up": "mlp.c_fc",
        "down": "mlp.c_proj",
    },
    "hugging_face": {
        "image": "vision_model.encoder.layers",
        "text": "text_model.encoder.layers",
        "attention_norm": "layer_norm1",
        "qkv": "self_attn.",
        "attention_out": "self_attn.out_proj",
        "feed_forward_norm": "layer_norm2",
        "up": "mlp.fc1",
        "down": "mlp.fc2",
    },
}
_BLOCK = re.compile(r"(image|text)/blocks/block_(\d+)/(\w+)/(\w+)")
_HEADS = ("q_proj", "k_proj", "v_proj")


_BACKBONE = re.compile(r"(?:image|text)/(backbone/.*|up|down)/(\w+)")


def source_of(layout: Layout, ours: str, prefix: str = "") -> Source:
    """The source of the parameter at the path `ours`. prefix: see TEXT_PREFIX."""
    if match := _BACKBONE.fullmatch(ours):  # the tower on a backbone, which only we write
        axes_of = {"kernel": 4 if match[1].startswith("backbone") else 2}
        return Source((ours.replace("/", "."),), tuple(range(axes_of.get(match[2], 1))))
    if match := _BLOCK.fullmatch(ours):
        tower, number, layer, kind = match.groups()
        known = _BLOCKS[layout]
        stem = f"{known[tower]}.{number}.{known[layer]}"
        suffix = "bias" if kind == "bias" else "weight"
        found: tuple[str, ...]
        if layer != "qkv":
            found = (f"{stem}.{suffix}",)
        elif layout == "open_clip":
            found = (f"{stem}_{suffix}",)
        else:
            found = tuple(f"{stem}{head}.{suffix}" for head in _HEADS)
        axes: tuple[int, ...] = (1, 0) if kind == "kernel" else (0,)
    else:
        found, axes = _top(layout, ours)
    if ours.startswith("text/"):
        found = tuple(prefix + name for name in found)
    return Source(found, axes)


def _top(layout: Layout, ours: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The name and axes of a parameter outside of the blocks."""
    known = _TOP[layout]
    if ours in known:
        turned = layout == "hugging_face" and ours.endswith("projection")
        axes = {"log_scale": (), "image/class_token": (0,), "image/patch/kernel": (2, 3, 1, 0)}
        return (known[ours],), axes.get(ours, (1, 0) if turned else (0, 1))
    layer, _, kind = ours.rpartition("/")
    return (f"{known[layer]}.{'bias' if kind == 'bias' else 'weight'}",), (0,)
