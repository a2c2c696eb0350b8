"""The U-Nets of Stable Diffusion 1 and 2: their sizes, their parameters, and their config."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffjax.core.json_types import Json, JsonObject
from diffjax.core.trees import Params
from diffjax.encoders.autoencoder.names import Layout
from diffjax.encoders.matching import SourceOf, Tensor, matched, shapes_of
from diffjax.encoders.stable_diffusion.names import Shape, source_of
from diffjax.encoders.unreadable import first_line
from diffjax.models.latent_unet import LatentUNet

CLASS = "UNet2DConditionModel"
LARGEST = 2**20  # of what a config says
XL = "is Stable Diffusion XL, and versions 1 and 2 alone are read"
ATTENTIVE = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
PLAIN = ("DownBlock2D", "UpBlock2D")
# What a config may say only so; a key that it lacks has this value too.
FIXED: JsonObject = {
    "act_fn": "silu", "center_input_sample": False, "flip_sin_to_cos": True, "freq_shift": 0,
    "norm_eps": 1e-5, "downsample_padding": 1, "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn", "dual_cross_attention": False,
    "only_cross_attention": False, "class_embed_type": None, "num_class_embeds": None,
    "addition_embed_type": None, "encoder_hid_dim": None, "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional", "timestep_post_act": None, "conv_in_kernel": 3,
    "conv_out_kernel": 3, "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": False,
    "cross_attention_norm": None, "class_embeddings_concat": False, "attention_type": "default",
    "mid_block_only_cross_attention": None, "time_cond_proj_dim": None,
}  # fmt: skip


class Loaded(NamedTuple):
    """A U-Net of others. text: the width of the text. linear: see `names.Shape`.

    side: of the latents that it was trained on. config: the config.json of diffusers.
    """

    model: LatentUNet
    params: Params
    text: int
    linear: bool
    side: int
    config: JsonObject

    def source(self, layout: Layout) -> SourceOf:
        """Where each parameter comes from."""
        shape = shape_of(self.model, self.linear)
        return lambda ours: source_of(layout, ours, shape)


def of_config(config: JsonObject, stored: Mapping[str, Tensor], file: Path, where: Path) -> Loaded:
    """The U-Net that a config.json of diffusers describes. file: the config; where: the weights.

    Raises:
      ValueError: it is another network, or the tensors are not those of this one; one line.
    """
    if config.get("addition_embed_type") == "text_time":
        raise ValueError(f"{file}: {XL}")
    if config.get("_class_name") != CLASS:
        raise ValueError(f"{file}: _class_name is {config.get('_class_name')!r}, want {CLASS!r}")
    for name, wanted in FIXED.items():
        if config.get(name, wanted) != wanted:
            raise ValueError(f"{file}: {name} is {config[name]!r}, want {wanted!r}")
    widths = _whole_numbers(config, "block_out_channels", file)
    down = config.get("down_block_types")
    if not isinstance(down, list) or any(kind not in (ATTENTIVE[0], PLAIN[0]) for kind in down):
        raise ValueError(
            f"{file}: down_block_types is {down!r}, want {ATTENTIVE[0]} and {PLAIN[0]}"
        )
    attentive = [kind == ATTENTIVE[0] for kind in down]
    mirrored: list[Json] = [ATTENTIVE[1] if one else PLAIN[1] for one in reversed(attentive)]
    if len(down) != len(widths) or config.get("up_block_types") != mirrored:
        raise ValueError(f"{file}: up_block_types do not mirror down_block_types, one for each of "
                         f"{len(widths)} block_out_channels")  # fmt: skip
    if any(width % widths[0] for width in widths):
        raise ValueError(f"{file}: block_out_channels {widths}: want multiples of the first")
    num_blocks = set(_same(config, "layers_per_block", 2, file))
    depth = set(_same(config, "transformer_layers_per_block", 1, file))
    if len(num_blocks) != 1 or len(depth) != 1:
        raise ValueError(f"{file}: layers that differ from level to level: {XL}")
    num_heads, head_width = _heads(config, widths, attentive, file)
    channels = [_whole(config.get(f"{side}_channels", 4), side, file) for side in ("in", "out")]
    model = LatentUNet(
        width=widths[0],
        mults=tuple(width // widths[0] for width in widths),
        num_blocks=num_blocks.pop(),
        attention_levels=tuple(i for i, one in enumerate(attentive) if one),
        num_heads=num_heads,
        head_width=head_width,
        depth=depth.pop(),
        groups=_whole(config.get("norm_num_groups", 32), "norm_num_groups", file),
        out_channels=channels[1],
    )
    text = _whole(config.get("cross_attention_dim", 1280), "cross_attention_dim", file)
    side = _whole(config.get("sample_size") or 64, "sample_size", file)
    linear = config.get("use_linear_projection", False) is True
    params = _params(model, text, linear, channels[0], stored, "diffusers", where)
    return Loaded(model, params, text, linear, side, config)


def of_tensors(stored: Mapping[str, Tensor], where: Path) -> Loaded:
    """The U-Net of a single file, whose sizes follow from the shapes of its tensors.

    Its heads do not: those with linear projections have heads of 64 (version 2), others 8 heads.

    Raises:
      ValueError: it is another network; one line.
    """
    if "label_emb.0.0.weight" in stored:
        raise ValueError(f"{where}: {XL}")
    shapes = {name: tuple(one.shape) for name, one in stored.items()}
    stem, out = (shapes.get(f"{name}.weight") for name in ("input_blocks.0.0", "out.2"))
    if stem is None or out is None or len(stem) != 4 or not stem[0] or not out:
        raise ValueError(f"{where}: no U-Net of Stable Diffusion is in it")
    levels: list[list[tuple[int, bool]]] = [[]]  # of each block its width, and if it attends
    for n in range(1, len(shapes) + 1):
        if f"input_blocks.{n}.0.op.weight" in shapes:
            levels.append([])
        elif shape := shapes.get(f"input_blocks.{n}.0.out_layers.3.weight"):
            levels[-1].append((shape[0], f"input_blocks.{n}.1.norm.weight" in shapes))
        else:
            break
    if any(not level or len(level) != len(levels[0]) or len(set(level)) != 1 for level in levels):
        raise ValueError(f"{where}: its levels are unlike those of Stable Diffusion")
    widths = [level[0][0] for level in levels]
    if any(width % stem[0] for width in widths):
        raise ValueError(f"{where}: levels of {widths} channels: want multiples of {stem[0]}")
    middle = "middle_block.1.transformer_blocks"
    found = [re.fullmatch(rf"{middle}\.(\d+)\..*", name) for name in shapes]
    text = shapes.get(f"{middle}.0.attn2.to_k.weight", (0, 0))
    linear = len(shapes.get("middle_block.1.proj_in.weight", ())) == 2
    if len(text) != 2 or not text[1]:
        raise ValueError(f"{where}: its U-Net reads no text: unlike Stable Diffusion")
    model = LatentUNet(
        width=stem[0],
        mults=tuple(width // stem[0] for width in widths),
        num_blocks=len(levels[0]),
        attention_levels=tuple(i for i, level in enumerate(levels) if level[0][1]),
        num_heads=0 if linear else 8,
        head_width=64,
        depth=1 + max(int(match[1]) for match in found if match),
        groups=32,
        out_channels=out[0],
    )
    params = _params(model, text[1], linear, stem[1], stored, "compvis", where)
    side = 96 if linear else 64
    return Loaded(model, params, text[1], linear, side, config_of(model, text[1], linear, side))


def config_of(model: LatentUNet, text: int, linear: bool, side: int) -> JsonObject:
    """The config.json of diffusers."""
    widths = [model.width * mult for mult in model.mults]
    attentive = [level in model.attention_levels for level in range(len(widths))]
    heads: Json = model.num_heads or [width // model.head_width for width in widths]
    return {
        "_class_name": CLASS,
        **FIXED,
        "in_channels": model.out_channels,
        "out_channels": model.out_channels,
        "sample_size": side,
        "block_out_channels": list(widths),
        "down_block_types": [ATTENTIVE[0] if one else PLAIN[0] for one in attentive],
        "up_block_types": [ATTENTIVE[1] if one else PLAIN[1] for one in reversed(attentive)],
        "layers_per_block": model.num_blocks,
        "transformer_layers_per_block": model.depth,
        "attention_head_dim": heads,
        "cross_attention_dim": text,
        "use_linear_projection": linear,
        "norm_num_groups": model.groups,
    }


def shape_of(model: LatentUNet, linear: bool) -> Shape:
    """What of the U-Net its names depend on."""
    return Shape(len(model.mults), model.num_blocks, tuple(model.attention_levels), linear)


def _params(
    model: LatentUNet,
    text: int,
    linear: bool,
    channels: int,
    stored: Mapping[str, Tensor],
    layout: Layout,
    where: Path,
) -> Params:
    """The parameters, after a check that the tensors are just those of the network."""
    if channels != model.out_channels:
        kind = {5: ": it is the version for depth", 9: ": it is the version for inpainting"}
        raise ValueError(
            f"{where}: takes {channels} channels and predicts {model.out_channels}, want equal "
            f"numbers{kind.get(channels, '')}"
        )
    if len(model.mults) * model.num_blocks * model.depth > len(stored):
        raise ValueError(f"{where}: {len(stored)} tensors are fewer than such a U-Net has blocks")
    shapes = (1, model.stride, model.stride, channels), (1,), (1, 1, text)
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    try:
        wanted = shapes_of(model, *inputs, jax.ShapeDtypeStruct((1, 1), jnp.bool_))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: sizes that make no network: {first_line(error)}") from None
    shape = shape_of(model, linear)
    sources = lambda ours: source_of(layout, ours, shape)  # noqa: E731
    params, left = matched(wanted, sources, stored, where, "this U-Net")
    if left:
        raise ValueError(f"{where}: {min(left)} is not of this U-Net, and {len(left)} in all")
    return params


def _heads(
    config: JsonObject, widths: list[int], attentive: list[bool], file: Path
) -> tuple[int, int]:
    """(heads, 0 for as many of the width; their width). The key's name is diffusers' mistake."""
    name = "num_attention_heads" if config.get("num_attention_heads") else "attention_head_dim"
    value = config.get(name, 8)
    if isinstance(value, int):
        return _whole(value, name, file), 64
    heads = _whole_numbers(config, name, file)
    if len(heads) != len(widths):
        raise ValueError(f"{file}: {name} is {value!r}, want one or {len(widths)} numbers")
    if len(set(heads)) == 1:
        return heads[0], 64
    each = {w // h if w % h == 0 else 0 for w, h, one in zip(widths, heads, attentive, strict=True)
            if one}  # fmt: skip
    if len(each) != 1 or 0 in each:
        raise ValueError(f"{file}: {name} is {value!r}: want heads of one width, or equally many")
    return 0, each.pop()


def _same(config: JsonObject, name: str, default: int, file: Path) -> list[int]:
    """A key that has one number, or one for each level."""
    if isinstance(config.get(name, default), list):
        return _whole_numbers(config, name, file)
    return [_whole(config.get(name, default), name, file)]


def _whole_numbers(config: JsonObject, name: str, file: Path) -> list[int]:
    value = config.get(name)
    if not isinstance(value, list) or not 0 < len(value) <= 16:
        raise ValueError(f"{file}: {name} is {str(value)[:80]}, want a list of up to 16 numbers")
    return [_whole(one, name, file) for one in value]


def _whole(value: Json, name: str, file: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= LARGEST:
        raise ValueError(f"{file}: {name} is {value!r}, want a whole number from 1 to {LARGEST}")
    return value
