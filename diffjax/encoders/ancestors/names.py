"""What the parameters of `UNet` and `Classifier` are called by OpenAI's code and by diffusers.

"openai" is the code of improved DDPM, ADM and GLIDE; ADM's classifiers name the blocks on the way
down alike; "diffusers" is UNet2DModel, and "old" its attention before version 0.18.
"""

import re
from typing import Literal, NamedTuple, TypeAlias

from diffjax.encoders.source import Source

Layout: TypeAlias = Literal["openai", "diffusers", "old"]

_ENDS: dict[str, tuple[str, str]] = {
    "conditioning/noise/dense_0": ("time_embed.0", "time_embedding.linear_1"),
    "conditioning/noise/dense_1": ("time_embed.2", "time_embedding.linear_2"),
    "conditioning/label": ("label_emb", "class_embedding"),
    # of GLIDE, which diffusers has not
    "conditioning/last_token": ("transformer_proj", ""),
    "words/norm_out": ("final_ln", ""),
    "stem": ("input_blocks.0.0", "conv_in"),
    "head/norm": ("out.0", "conv_norm_out"),
    "head/conv": ("out.2", "conv_out"),
    # of classifiers, which diffusers has not
    "norm": ("out.0", ""),
    "pool/qkv": ("out.2.qkv_proj", ""),
    "pool/out": ("out.2.c_proj", ""),
}
_POSITIONS = Source(("out.2.positional_embedding",), (1, 0))
_RES: dict[str, tuple[str, str]] = {
    "norm_0": ("in_layers.0", "norm1"),
    "conv_0": ("in_layers.2", "conv1"),
    "scale_shift": ("emb_layers.1", "time_emb_proj"),
    "shift": ("emb_layers.1", "time_emb_proj"),
    "norm_1": ("out_layers.0", "norm2"),
    "conv_1": ("out_layers.3", "conv2"),
    "skip": ("skip_connection", "conv_shortcut"),
}
_ATTENTION: dict[Layout, dict[str, tuple[str, ...]]] = {
    "openai": {
        "norm": ("norm",),
        "qkv": ("qkv",),
        "text_kv": ("encoder_kv",),
        "out": ("proj_out",),
    },
    "diffusers": {
        "norm": ("group_norm",),
        "qkv": ("to_q", "to_k", "to_v"),
        "out": ("to_out.0",),
        "text_kv": ("add_k_proj", "add_v_proj"),
    },
    "old": {"norm": ("group_norm",), "qkv": ("query", "key", "value"), "out": ("proj_attn",)},
}
# Of GLIDE's text transformer.
_WORDS = {
    "words/tokens": "token_embedding.weight",
    "words/positions": "positional_embedding",
    "words/padding": "padding_embedding",
}
_OF_WORDS = {
    "attention_norm": "ln_1", "qkv": "attn.c_qkv", "attention_out": "attn.c_proj",
    "feed_forward_norm": "ln_2", "up": "mlp.c_fc", "down": "mlp.c_proj",
}  # fmt: skip
_WORD_BLOCK = re.compile(r"words/blocks/block_(\d+)/(\w+)")
_BLOCK = re.compile(r"(down|up|middle)_(\d+)(?:_(\d+))?/(res|attention)/(.+)")
_MOVE = re.compile(r"(down|up)_(\d+)_to_\d+/(?:res/)?(.+)")
_CONV = ("stem", "conv", "conv_0", "conv_1", "skip")


class Shape(NamedTuple):
    """What of a U-Net its names depend on. attention: the levels that attend."""

    num_levels: int
    num_blocks: int
    attention: tuple[int, ...]


def source_of(layout: Layout, ours: str, shape: Shape) -> Source:
    """The source of the parameter at the path `ours` of a network's parameters."""
    if ours == "pool/positions":
        return _POSITIONS
    if ours in _WORDS:
        return Source((_WORDS[ours],), (0, 1))
    layer, _, kind = ours.rpartition("/")
    suffix = "bias" if kind == "bias" else "weight"
    names = tuple(f"{name}.{suffix}" for name in _layers(layout, layer, shape))
    if kind == "embedding":
        return Source(names, (0, 1))
    if kind != "kernel":
        return Source(names, (0,))
    last = layer.rpartition("/")[2]
    if last in _CONV:
        return Source(names, (2, 3, 1, 0))
    over_places = layout == "openai" and last in ("qkv", "text_kv", "out")
    return Source(names, (1, 0), ones=int(over_places and not ours.startswith("words/")))


def _layers(layout: Layout, ours: str, shape: Shape) -> tuple[str, ...]:
    """Their layers of which our layer consists."""
    theirs = layout != "openai"
    if ours in _ENDS:
        return (_ENDS[ours][theirs],)
    if match := _WORD_BLOCK.fullmatch(ours):
        return (f"transformer.resblocks.{match[1]}.{_OF_WORDS[match[2]]}",)
    if match := _MOVE.fullmatch(ours):
        return (_move(layout, match[1], int(match[2]), match[3], shape),)
    match = _BLOCK.fullmatch(ours)
    assert match is not None, ours
    side, first, second, part, inside = match.groups()
    if side == "middle":
        stem = _middle(layout, int(first), part)
    else:
        stem = _block(layout, side, int(first), int(second), part, shape)
    if part == "res":
        return (f"{stem}.{_RES[inside][theirs]}",)
    return tuple(f"{stem}.{name}" for name in _ATTENTION[layout][inside])


def _middle(layout: Layout, i: int, part: str) -> str:
    if layout != "openai":
        return f"mid_block.{'resnets' if part == 'res' else 'attentions'}.{i}"
    return f"middle_block.{1 if part == 'attention' else 2 * i}"


def _block(layout: Layout, side: str, level: int, i: int, part: str, shape: Shape) -> str:
    """A residual block or an attention; theirs on the way up begin with the lowest level."""
    up = shape.num_levels - 1 - level
    if layout != "openai":
        blocks = f"down_blocks.{level}" if side == "down" else f"up_blocks.{up}"
        return f"{blocks}.{'resnets' if part == 'res' else 'attentions'}.{i}"
    each = shape.num_blocks + 1
    if side == "down":
        blocks = f"input_blocks.{1 + level * each + i}"
    else:
        blocks = f"output_blocks.{up * each + i}"
    return f"{blocks}.{'0' if part == 'res' else '1'}"


def _move(layout: Layout, side: str, level: int, inside: str, shape: Shape) -> str:
    """A layer of a change of resolution: a convolution, or a residual block."""
    up, each = shape.num_levels - 1 - level, shape.num_blocks + 1
    if layout != "openai":
        where = f"down_blocks.{level}.downsamplers" if side == "down" else (
            f"up_blocks.{up}.upsamplers"
        )  # fmt: skip
        return f"{where}.0.{_RES[inside][1] if inside in _RES else inside}"
    layer = _RES[inside][0] if inside in _RES else {"down": "op", "up": "conv"}[side]
    if side == "down":
        return f"input_blocks.{(level + 1) * each}.0.{layer}"
    return f"output_blocks.{(up + 1) * each - 1}.{2 if level in shape.attention else 1}.{layer}"
