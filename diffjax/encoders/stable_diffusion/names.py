"""What the parameters of `LatentUNet` are called by diffusers and by latent diffusion's code."""

import re
from typing import NamedTuple

from diffjax.encoders.autoencoder.names import Layout
from diffjax.encoders.source import Source

_ENDS: dict[Layout, dict[str, str]] = {
    "diffusers": {
        "dense_0": "time_embedding.linear_1", "dense_1": "time_embedding.linear_2",
        "stem": "conv_in", "head/norm": "conv_norm_out", "head/conv": "conv_out",
    },
    "compvis": {
        "dense_0": "time_embed.0", "dense_1": "time_embed.2", "stem": "input_blocks.0.0",
        "head/norm": "out.0", "head/conv": "out.2",
    },
}  # fmt: skip
_RES: dict[Layout, dict[str, str]] = {
    "diffusers": {
        "norm_0": "norm1", "conv_0": "conv1", "shift": "time_emb_proj", "norm_1": "norm2",
        "conv_1": "conv2", "skip": "conv_shortcut",
    },
    "compvis": {
        "norm_0": "in_layers.0", "conv_0": "in_layers.2", "shift": "emb_layers.1",
        "norm_1": "out_layers.0", "conv_1": "out_layers.3", "skip": "skip_connection",
    },
}  # fmt: skip
# Of a block of a transformer, alike in both: what our layer consists of.
_TRANSFORMER = {
    "norm_self": ("norm1",),
    "norm_cross": ("norm2",),
    "norm_feed": ("norm3",),
    "self/qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "self/out": ("attn1.to_out.0",),
    "cross/q": ("attn2.to_q",),
    "cross/text_kv": ("attn2.to_k", "attn2.to_v"),
    "cross/out": ("attn2.to_out.0",),
    "feed/dense_0": ("ff.net.0.proj",),
    "feed/dense_1": ("ff.net.2",),
}
_BLOCK = re.compile(r"(down|up|middle)_(\d+)(?:_(\d+))?/(res|attention)/(.+)")
_MOVE = re.compile(r"(down|up)_(\d+)_to_\d+/conv")
_INSIDE = re.compile(r"block_(\d+)/(.+)")
_CONV = ("stem", "conv", "conv_0", "conv_1", "skip")


class Shape(NamedTuple):
    """What of a U-Net its names depend on. linear: its projections are no convolutions."""

    num_levels: int
    num_blocks: int
    attention: tuple[int, ...]
    linear: bool


def source_of(layout: Layout, ours: str, shape: Shape) -> Source:
    """The source of the parameter at the path `ours` of `LatentUNet`'s parameters."""
    layer, _, kind = ours.rpartition("/")
    names = tuple(
        f"{name}.{'bias' if kind == 'bias' else 'weight'}" for name in _layers(layout, layer, shape)
    )
    if kind != "kernel":
        return Source(names, (0,))
    last = layer.rpartition("/")[2]
    if last in _CONV:
        return Source(names, (2, 3, 1, 0))
    convolved = last in ("proj_in", "proj_out") and not shape.linear
    return Source(names, (1, 0), ones=2 * convolved)


def _layers(layout: Layout, ours: str, shape: Shape) -> tuple[str, ...]:
    """Their layers of which our layer consists."""
    if ours in _ENDS[layout]:
        return (_ENDS[layout][ours],)
    if match := _MOVE.fullmatch(ours):
        return (_move(layout, match[1], int(match[2]), shape),)
    match = _BLOCK.fullmatch(ours)
    assert match is not None, ours
    side, first, second, part, inside = match.groups()
    if side == "middle":
        stem = _middle(layout, int(first), part)
    else:
        stem = _block(layout, side, int(first), int(second), part, shape)
    if part == "res":
        return (f"{stem}.{_RES[layout][inside]}",)
    if match := _INSIDE.fullmatch(inside):
        return tuple(f"{stem}.transformer_blocks.{match[1]}.{x}" for x in _TRANSFORMER[match[2]])
    return (f"{stem}.{inside}",)


def _middle(layout: Layout, i: int, part: str) -> str:
    if layout == "diffusers":
        return f"mid_block.{'resnets' if part == 'res' else 'attentions'}.{i}"
    return f"middle_block.{1 if part == 'attention' else 2 * i}"


def _block(layout: Layout, side: str, level: int, i: int, part: str, shape: Shape) -> str:
    """A residual block or a transformer; theirs on the way up begin with the lowest level."""
    up = shape.num_levels - 1 - level
    if layout == "diffusers":
        blocks = f"down_blocks.{level}" if side == "down" else f"up_blocks.{up}"
        return f"{blocks}.{'resnets' if part == 'res' else 'attentions'}.{i}"
    each = shape.num_blocks + 1
    blocks = f"input_blocks.{1 + level * each + i}"
    if side == "up":
        blocks = f"output_blocks.{up * each + i}"
    return f"{blocks}.{'0' if part == 'res' else '1'}"


def _move(layout: Layout, side: str, level: int, shape: Shape) -> str:
    """A change of resolution; theirs on the way up belongs to the last block of its level."""
    up = shape.num_levels - 1 - level
    if layout == "diffusers":
        if side == "down":
            return f"down_blocks.{level}.downsamplers.0.conv"
        return f"up_blocks.{up}.upsamplers.0.conv"
    each = shape.num_blocks + 1
    if side == "down":
        return f"input_blocks.{(level + 1) * each}.0.op"
    return f"output_blocks.{(up + 1) * each - 1}.{2 if level in shape.attention else 1}.conv"
