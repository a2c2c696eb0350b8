"""The decoder of Karlo, as diffusers saves it: a UNet2DConditionModel and what projects for it."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffjax.core.json_types import Json, JsonObject
from diffjax.core.trees import Params
from diffjax.encoders import tensors
from diffjax.encoders.ancestors.names import Shape
from diffjax.encoders.ancestors.names import source_of as of_unet
from diffjax.encoders.matching import Tensor, matched
from diffjax.encoders.source import Source
from diffjax.encoders.unclip.prior import CONFIG, LARGEST, WEIGHTS
from diffjax.encoders.unreadable import first_line, read_downloaded_json
from diffjax.models.clip_unet import ClipUNet
from diffjax.models.layers.embedding import VECTOR_TOKENS

CLASS, PROJECTS = "UNet2DConditionModel", "UnCLIPTextProjModel"
FOLDER, PROJECTION = "decoder", "text_proj"
DOWN = ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D")
UP = ("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D")
# What a config may say only so.
FIXED: JsonObject = {
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "class_embed_type": "identity",
    "resnet_time_scale_shift": "scale_shift",
}  # fmt: skip
# The same; a key that it lacks has this value too.
USUAL: JsonObject = {
    "act_fn": "silu", "center_input_sample": False, "flip_sin_to_cos": True, "freq_shift": 0,
    "norm_num_groups": 32, "norm_eps": 1e-5, "mid_block_scale_factor": 1, "in_channels": 3,
    "only_cross_attention": False, "cross_attention_norm": None, "encoder_hid_dim": None,
    "addition_embed_type": None, "time_embedding_type": "positional", "timestep_post_act": None,
    "conv_in_kernel": 3, "conv_out_kernel": 3, "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False, "class_embeddings_concat": False,
}  # fmt: skip
_LAYERS = {
    "vector": "clip_image_embeddings_project_to_time_embeddings",
    "text_vector": "embedding_proj",
    "vector_tokens": "clip_extra_context_tokens_proj",
    "text_in": "encoder_hidden_states_proj",
    "text_norm": "text_encoder_hidden_states_norm",
}
_NO_VECTOR = "learned_classifier_free_guidance_embeddings"


class Loaded(NamedTuple):
    """A decoder of others. side: of its pictures. width: of the vectors and states of its CLIP."""

    model: ClipUNet
    params: Params
    side: int
    width: int


def load(where: Path) -> Loaded:
    """The decoder in the folder of a whole Karlo.

    Raises:
      ValueError: it is another network, its parts do not fit, or a file is damaged; one line.
    """
    folder, beside = where / FOLDER, where / PROJECTION
    model, side = model_of(read_downloaded_json(folder / CONFIG), folder / CONFIG)
    width = width_of(read_downloaded_json(beside / CONFIG), beside / CONFIG, model)
    stored: dict[str, Tensor] = dict(tensors.open_safetensors(folder, WEIGHTS))
    projections = tensors.open_safetensors(beside, WEIGHTS)
    stored |= {f"{PROJECTION}.{name}": x for name, x in projections.items()}
    if len(model.mults) * model.num_blocks > len(stored):
        raise ValueError(f"{folder}: {len(stored)} tensors are fewer than such a U-Net has blocks")
    x, one = jnp.zeros((1, model.stride, model.stride, 3)), jnp.zeros(1)
    text, vector = jnp.zeros((1, 1, width)), jnp.zeros((1, width))
    try:
        shapes = jax.eval_shape(
            model.init, jax.random.key(0), x, one, text, jnp.ones((1, 1), bool), vector, vector
        )["params"]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder}: sizes that make no network: {first_line(error)}") from None
    shape = Shape(len(model.mults), model.num_blocks, tuple(model.attention_levels))
    sources = lambda ours: source_of(ours, shape)  # noqa: E731
    params, left = matched(shapes, sources, stored, folder, "this decoder")
    if left:
        raise ValueError(f"{folder}: {min(left)} is not of this decoder, and {len(left)} in all")
    return Loaded(model, params, side, width)


def model_of(config: JsonObject, file: Path) -> tuple[ClipUNet, int]:
    """(the network of a config.json, the side of its pictures).

    Raises:
      ValueError: it is another network; one line.
    """
    if config.get("_class_name") != CLASS:
        raise ValueError(f"{file}: _class_name is {config.get('_class_name')!r}, want {CLASS!r}")
    for name, wanted in (*FIXED.items(), *USUAL.items()):
        if config.get(name, USUAL.get(name)) != wanted:
            raise ValueError(f"{file}: {name} is {config.get(name)!r}, want {wanted!r}")
    widths, down = config.get("block_out_channels"), config.get("down_block_types")
    if not isinstance(widths, list) or not 0 < len(widths) <= 16:
        raise ValueError(f"{file}: block_out_channels is {str(widths)[:80]}, want 1 to 16 numbers")
    sizes = [_whole(one, "block_out_channels", file) for one in widths]
    if any(size % sizes[0] for size in sizes):
        raise ValueError(f"{file}: block_out_channels {sizes}: want multiples of the first")
    if not isinstance(down, list) or any(kind not in DOWN for kind in down):
        raise ValueError(f"{file}: down_block_types is {str(down)[:80]}, want {' and '.join(DOWN)}")
    attentive = [kind == DOWN[1] for kind in down]
    mirrored: list[Json] = [UP[one] for one in reversed(attentive)]
    if len(down) != len(sizes) or config.get("up_block_types") != mirrored:
        raise ValueError(f"{file}: up_block_types do not mirror down_block_types, one for each of "
                         f"{len(sizes)} block_out_channels")  # fmt: skip
    head = _whole(config.get("attention_head_dim", 8), "attention_head_dim", file)
    if any(size % head for size, one in zip(sizes, attentive, strict=True) if one):
        raise ValueError(f"{file}: attention_head_dim {head} does not divide the channels {sizes}")
    if config.get("out_channels") != 6:
        raise ValueError(f"{file}: out_channels is {config.get('out_channels')!r}, want 6: noise "
                         "and a variance")  # fmt: skip
    model = ClipUNet(
        width=sizes[0],
        mults=tuple(size // sizes[0] for size in sizes),
        num_blocks=_whole(config.get("layers_per_block", 2), "layers_per_block", file),
        attention_levels=tuple(i for i, one in enumerate(attentive) if one),
        head_width=head,
        token_width=_whole(config.get("cross_attention_dim"), "cross_attention_dim", file),
        out_channels=6,
        norm_groups=32,
        attention_bias=True,
        steps=lambda logsnr: logsnr,
    )
    side = _whole(config.get("sample_size"), "sample_size", file)
    if side % model.stride:
        raise ValueError(f"{file}: sample_size {side}: want a multiple of {model.stride}")
    return model, side


def width_of(config: JsonObject, file: Path, model: ClipUNet) -> int:
    """The width of the vectors that a config.json of the projections says.

    Raises:
      ValueError: it is of another decoder; one line.
    """
    wanted: JsonObject = {
        "_class_name": PROJECTS, "clip_extra_context_tokens": VECTOR_TOKENS,
        "time_embed_dim": 4 * model.width, "cross_attention_dim": model.token_width,
    }  # fmt: skip
    for name, value in wanted.items():
        if config.get(name) != value:
            raise ValueError(f"{file}: {name} is {config.get(name)!r}, want {value!r}")
    return _whole(config.get("clip_embeddings_dim", 768), "clip_embeddings_dim", file)


def source_of(ours: str, shape: Shape) -> Source:
    """Where a parameter of `ClipUNet` lies."""
    if ours == "conditioning/no_vector":
        return Source((f"{PROJECTION}.{_NO_VECTOR}",), (0,))
    layer, _, kind = ours.removeprefix("conditioning/").partition("/")
    if not ours.startswith("conditioning/") or layer not in _LAYERS:
        return of_unet("diffusers", ours, shape)
    suffix = "bias" if kind == "bias" else "weight"
    name = f"{PROJECTION}.{_LAYERS[layer]}.{suffix}"
    return Source((name,), (1, 0) if kind == "kernel" else (0,))


def _whole(value: Json, name: str, file: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= LARGEST:
        raise ValueError(f"{file}: {name} is {value!r}, want a whole number from 1 to {LARGEST}")
    return value
