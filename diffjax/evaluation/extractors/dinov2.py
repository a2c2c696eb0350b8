"""DINOv2 as an extractor, from Hugging Face's folders and from Facebook's .pth files."""

import functools
import math
import re
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from diffjax.core.errors import InputError
from diffjax.core.trees import Params
from diffjax.encoders import foreign
from diffjax.encoders import tensors as folders
from diffjax.encoders.unreadable import read_downloaded_json
from diffjax.evaluation.extractors.extractor import Apply, Extractor
from diffjax.images import pixels
from diffjax.models.dinov2 import Dinov2, Dinov2Config

SIDE_PX = 224
RESIZE = f"bicubic {SIDE_PX} px"
# The mean and deviation of ImageNet's pixels in [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEAD_WIDTH = 64  # of all of Facebook's networks; their files do not say it
CONFIG = "config.json"
UNUSED = ("mask_token",)  # only training masks patches

# Hugging Face's names, older and newer ones, and Facebook's; and ours for each of Facebook's.
HUGGING_FACE = (
    (r"embeddings\.(cls_token|mask_token)", r"\1"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"encoder\.layer\.", "blocks."),
    (r"attention\.(?:output\.dense|o_proj)", "attn.proj"),
    (r"attention\.(?:attention\.)?(query|key|value|q|k|v)(?:_proj)?\b", r"attn.\1"),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
    (r"layernorm\.", "norm."),
)
LAYERS = {
    "norm1": "attention_norm", "attn.qkv": "qkv", "attn.proj": "attention_out",
    "ls1": "attention_scale", "norm2": "feed_forward_norm", "mlp.fc1": "up", "mlp.fc2": "down",
    "ls2": "feed_forward_scale",
}  # fmt: skip
BLOCK = re.compile(r"blocks\.(\d+)\.([a-z0-9.]+)\.(weight|bias|gamma)")


def load(place: Path) -> Extractor:
    """The extractor with the weights of a folder of Hugging Face's, or a file of Facebook's.

    Raises:
      InputError: there is none, or it is damaged or of another network.
    """
    try:
        found, heads, files = _of_folder(place) if place.is_dir() else _of_file(place)
        params = from_facebook(found)
        config = config_of(params, heads)
    except ValueError as error:
        said = str(error)
        raise InputError(said if said.startswith(str(place)) else f"{place}: {said}") from None
    x = jnp.zeros((1, 2 * config.patch, 2 * config.patch, 3))
    wanted = jax.eval_shape(Dinov2(config).init, jax.random.key(0), x)["params"]
    foreign.check_shapes(params, wanted, place, "DINOv2")
    size = f"{config.width} x {config.layers}, patch {config.patch}"
    name = f"dinov2 {size}, class token, weights {foreign.digest(files)}"
    return Extractor(name, RESIZE, config.width, "fd_dinov2", params, _class_token(config))


def prepared(pictures: UInt8[Array, "b h w c"], side_px: int = SIDE_PX) -> Float[Array, "b s s c"]:
    """Pictures at 224 px, in units of the deviation of ImageNet's pixels from their mean.

    Pictures are resized as a whole, by bicubic interpolation with antialiasing.
    """
    x = pixels.resize(pixels.from_uint8(pictures), side_px, side_px)
    return ((jnp.clip(x, -1, 1) + 1) / 2 - jnp.array(MEAN)) / jnp.array(STD)


@functools.lru_cache(maxsize=8)
def _class_token(config: Dinov2Config) -> Apply:
    """The function of all networks of a size."""

    def apply(params: Params, pictures: UInt8[Array, "b h w c"]) -> Float[Array, "b d"]:
        return Dinov2(config).apply({"params": params}, prepared(pictures))  # type: ignore[return-value]

    return apply


def _of_folder(folder: Path) -> tuple[dict[str, np.ndarray], int, list[Path]]:
    """(tensors by Facebook's names, heads, files) of a folder of Hugging Face's."""
    file = folder / CONFIG
    if not file.exists():
        raise ValueError(f"{folder}: no {CONFIG}: want a folder of transformers' Dinov2Model")
    said = read_downloaded_json(file)
    if said.get("model_type") != "dinov2" or said.get("use_swiglu_ffn"):
        kind = "SwiGLU" if said.get("use_swiglu_ffn") else repr(said.get("model_type"))
        raise ValueError(f"{file}: {kind}: want a 'dinov2' without SwiGLU, such as dinov2-large")
    heads = said.get("num_attention_heads")
    if not isinstance(heads, int) or heads < 1:
        raise ValueError(f"{file}: num_attention_heads = {heads!r}: want a whole number from 1 up")
    stored = folders.open_folder(folder)
    found = {name: one.read(dtype=np.float32) for name, one in stored.items()}
    return as_facebooks(found), heads, folders.weight_files(folder)


def _of_file(file: Path) -> tuple[dict[str, np.ndarray], int, list[Path]]:
    return foreign.read_torch(file), 0, [file]


def as_facebooks(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Hugging Face's tensors by Facebook's names; queries, keys and values become one tensor."""
    found: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        for pattern, theirs in HUGGING_FACE:
            name = re.sub(pattern, theirs, name)
        found[name] = tensor
    for name in [name for name in found if re.search(r"attn\.q(uery)?\.", name)]:
        which = ("query", "key", "value") if "query" in name else ("q", "k", "v")
        names = [name.replace(f"attn.{which[0]}.", f"attn.{one}.") for one in which]
        for one in names:
            if one not in found:
                raise ValueError(f"tensor {one} is missing")
        found[name.replace(f"attn.{which[0]}.", "attn.qkv.")] = np.concatenate(
            [found.pop(one) for one in names]
        )
    return found


def from_facebook(tensors: Mapping[str, np.ndarray]) -> Params:
    """Parameters of `Dinov2` from tensors by Facebook's names.

    Raises:
      ValueError: a tensor is not of this network.
    """
    flat: dict[tuple[str, ...], np.ndarray] = {}
    for name, tensor in tensors.items():
        value = np.asarray(tensor, np.float32)
        if match := BLOCK.fullmatch(name):
            number, layer, kind = match.groups()
            if layer not in LAYERS:
                raise ValueError(f"tensor {name} is not of a DINOv2 without registers")
            path: tuple[str, ...] = (f"block_{number}", LAYERS[layer])
            turned = value.T if value.ndim == 2 else value
            if kind != "gamma":
                path = (*path, _number(kind, "norm" in layer))
            flat[path] = turned
        elif name in ("norm.weight", "norm.bias"):
            flat["norm", _number(name.removeprefix("norm."), True)] = value
        elif name == "patch_embed.proj.weight" and value.ndim == 4:
            flat["patch", "kernel"] = value.transpose(2, 3, 1, 0)
        elif name == "patch_embed.proj.bias":
            flat["patch", "bias"] = value
        elif name == "cls_token":
            flat["class_token",] = value.reshape(-1)
        elif name == "pos_embed" and value.ndim == 3:
            flat["positions",] = value[0]
        elif name not in UNUSED:
            raise ValueError(f"tensor {name} is not of a DINOv2 without registers")
    return foreign.nested(flat)


def config_of(params: Params, heads: int = 0) -> Dinov2Config:
    """The sizes by the shapes of parameters. heads: 0 means as many of 64 as fill the width.

    Raises:
      ValueError: a parameter that tells a size is missing.
    """
    try:
        patch, _, _, width = params["patch"]["kernel"].shape
        hidden = params["block_0"]["up"]["kernel"].shape[1]
        places = len(params["positions"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"no {error} in it: not the weights of DINOv2") from None
    layers = next(i for i in range(len(params) + 1) if f"block_{i}" not in params)
    side = math.isqrt(max(places - 1, 0))
    return Dinov2Config(width, layers, heads or max(width // HEAD_WIDTH, 1), hidden, patch, side)


def _number(kind: str, is_norm: bool) -> str:
    """What a weight or bias is called here."""
    if kind == "bias":
        return "bias"
    return "scale" if is_norm else "kernel"
