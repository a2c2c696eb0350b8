"""What the parameters of an autoencoder are called by diffusers and by latent diffusion's code."""

import re
from typing import Literal

from diffjax.encoders.source import Source

# "compvis" is the code of latent diffusion and of Stable Diffusion's single files.
Layout = Literal["diffusers", "compvis"]

_LAYERS: dict[Layout, dict[str, str]] = {
    "diffusers": {"norm_0": "norm1", "conv_0": "conv1", "norm_1": "norm2", "conv_1": "conv2",
                  "skip": "conv_shortcut"},
    "compvis": {"norm_0": "norm1", "conv_0": "conv1", "norm_1": "norm2", "conv_1": "conv2",
                "skip": "nin_shortcut"},
}  # fmt: skip
_ATTENTION: dict[Layout, dict[str, tuple[str, ...]]] = {
    "diffusers": {"norm": ("group_norm",), "qkv": ("to_q", "to_k", "to_v"), "out": ("to_out.0",)},
    "compvis": {"norm": ("norm",), "qkv": ("q", "k", "v"), "out": ("proj_out",)},
}
_ENDS: dict[Layout, dict[str, str]] = {
    "diffusers": {"stem": "conv_in", "norm": "conv_norm_out", "head": "conv_out"},
    "compvis": {"stem": "conv_in", "norm": "norm_out", "head": "conv_out"},
}
_TOP = {"moments": "quant_conv", "latent": "post_quant_conv", "last": "decoder.conv_out"}
CODES = "quantize.embedding.weight"
# What older files of diffusers call the layers of attention.
OLD = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
_LEVEL = re.compile(r"level_(\d+)_(\d+)(_attention)?")
_MOVE = re.compile(r"(halve|double)_(\d+)/conv")
_AXES = {"kernel": (2, 3, 1, 0), "bias": (0,), "scale": (0,)}


def source_of(layout: Layout, ours: str, num_levels: int) -> Source:
    """The source of the parameter at the path `ours` of `Autoencoder`'s parameters."""
    if ours == "codebook/codes":
        return Source((CODES,), (0, 1))
    layer, _, kind = ours.rpartition("/")
    suffix = "bias" if kind == "bias" else "weight"
    if layer in _TOP:
        return Source((f"{_TOP[layer]}.{suffix}",), _AXES[kind])
    side, _, rest = layer.partition("/")
    if rest in _ENDS[layout]:
        return Source((f"{side}.{_ENDS[layout][rest]}.{suffix}",), _AXES[kind])
    if match := _MOVE.fullmatch(rest):
        stem = _move(layout, side, int(match[2]), num_levels)
        return Source((f"{stem}.{suffix}",), _AXES[kind])
    block, _, part = rest.partition("/")
    stem = _block(layout, side, block, num_levels)
    if not block.endswith("attention"):
        return Source((f"{stem}.{_LAYERS[layout][part]}.{suffix}",), _AXES[kind])
    names = tuple(f"{stem}.{name}.{suffix}" for name in _ATTENTION[layout][part])
    if kind != "kernel":
        return Source(names, (0,))
    return Source(names, (1, 0), ones=2 if layout == "compvis" else 0)


def _block(layout: Layout, side: str, block: str, num_levels: int) -> str:
    """The name of a residual block, or of an attention."""
    if block.startswith("middle"):
        which = block.removeprefix("middle_")
        if layout == "compvis":
            return f"{side}.mid." + {"0": "block_1", "1": "block_2", "attention": "attn_1"}[which]
        number = "attentions.0" if which == "attention" else f"resnets.{which}"
        return f"{side}.mid_block.{number}"
    match = _LEVEL.fullmatch(block)
    assert match is not None, block
    level, i, attention = int(match[1]), match[2], match[3]
    stem = _level(layout, side, level, num_levels)
    if layout == "compvis":
        return f"{stem}.{'attn' if attention else 'block'}.{i}"
    return f"{stem}.{'attentions' if attention else 'resnets'}.{i}"


def _level(layout: Layout, side: str, level: int, num_levels: int) -> str:
    """The name of a level; diffusers numbers those of the decoder from the smallest picture."""
    if layout == "compvis":
        return f"{side}.{'down' if side == 'encoder' else 'up'}.{level}"
    if side == "encoder":
        return f"{side}.down_blocks.{level}"
    return f"{side}.up_blocks.{num_levels - 1 - level}"


def _move(layout: Layout, side: str, level: int, num_levels: int) -> str:
    """The name of a change of resolution."""
    stem = _level(layout, side, level, num_levels)
    if layout == "compvis":
        return f"{stem}.{'downsample' if side == 'encoder' else 'upsample'}.conv"
    return f"{stem}.{'downsamplers' if side == 'encoder' else 'upsamplers'}.0.conv"
