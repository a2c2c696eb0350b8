"""Loads autoencoders of diffusers and of latent diffusion's code, and saves ours as diffusers does.

A folder has config.json and diffusion_pytorch_model.safetensors. A single file is that of Stable
Diffusion, whose autoencoder is one of several parts, or of an autoencoder alone.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from diffjax.core.files import write_whole
from diffjax.core.json_types import Json, JsonObject
from diffjax.core.trees import Params
from diffjax.encoders import tensors, torch_archive
from diffjax.encoders.autoencoder.names import CODES, OLD, Layout, source_of
from diffjax.encoders.matching import Tensor, matched, shapes_of, stored_of, under
from diffjax.encoders.stored import Stored
from diffjax.encoders.unreadable import read_downloaded_json
from diffjax.models.autoencoder.network import Autoencoder, Sizes

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
PREFIX = "first_stage_model."  # of the autoencoder in Stable Diffusion's single files
SCALE = 0.18215  # of Stable Diffusion's latents, which single files do not say
# Classes of diffusers that are this network.
CLASSES = ("AutoencoderKL", "VQModel")
# Before it, if the network has patches, which those of diffusers have not.
PATCHED = "Patched"
ATTENTIVE = ("AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D")
PLAIN = ("DownEncoderBlock2D", "UpDecoderBlock2D")
# What single files hold beside the network: the loss's own, and statistics of training.
LISTS = ("block_out_channels", "down_block_types")
LARGEST = 2**20  # of what a config says
IGNORED = ("loss.", "model_ema.", "log_variance")


class Loaded(NamedTuple):
    """An autoencoder of others. scale: what its latents are multiplied by for diffusion."""

    sizes: Sizes
    params: Params
    scale: float


def load(where: Path) -> Loaded:
    """The autoencoder of a folder or a file.

    Raises:
      ValueError: there is none, it is damaged, or it is another network; one line.
    """
    if where.is_dir():
        sizes, scale = sizes_of_config(_config(where), where / CONFIG)
        found = {_new(one.name): one for one in _safetensors(where / WEIGHTS)}
        return Loaded(sizes, _params(sizes, found, "diffusers", where / WEIGHTS), scale)
    if not where.is_file():
        raise ValueError(f"{where}: there is no such file or folder")
    return of_tensors(_single(where), where)


def of_tensors(stored: Mapping[str, Tensor], where: Path) -> Loaded:
    """The autoencoder with the names of latent diffusion's code; where: its file, for messages.

    Raises:
      ValueError: as `load`.
    """
    stored = {name: one for name, one in stored.items() if not name.startswith(IGNORED)}
    sizes = sizes_of_tensors({name: tuple(one.shape) for name, one in stored.items()}, where)
    return Loaded(sizes, _params(sizes, stored, "compvis", where), SCALE)


def save(folder: Path, loaded: Loaded) -> None:
    """Writes an autoencoder as diffusers does."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(config_of(loaded.sizes, loaded.scale), indent=2) + "\n"
    write_whole(folder / CONFIG, config.encode())
    stored = tensors_of(loaded, "diffusers")
    write_whole(folder / WEIGHTS, safetensors.numpy.save(stored, metadata={"format": "pt"}))


def tensors_of(loaded: Loaded, layout: Layout) -> dict[str, np.ndarray]:
    """The tensors of an autoencoder by their names in a layout."""
    num_levels = len(loaded.sizes.mults)
    return stored_of(loaded.params, lambda ours: source_of(layout, ours, num_levels))


def sizes_of_config(config: JsonObject, file: Path) -> tuple[Sizes, float]:
    """(the sizes, the scale of the latents) that a config.json of diffusers says.

    Raises:
      ValueError: it is of another network.
    """
    said = str(config.get("_class_name"))
    kind, patched = said.removeprefix(PATCHED), said.startswith(PATCHED)
    if kind not in CLASSES:
        raise ValueError(f"{file}: _class_name is {said!r}, want one of {', '.join(CLASSES)}")
    widths = [_whole(one, "block_out_channels", file) for one in _list(config, file, 0)]
    down = [str(one) for one in _list(config, file, 1)]
    if len(down) != len(widths):
        raise ValueError(f"{file}: {len(widths)} block_out_channels, {len(down)} down_block_types")
    if odd := [name for name in down if name not in (*ATTENTIVE, *PLAIN)]:
        raise ValueError(f"{file}: down_block_types has {odd[0]!r}, which is another network")
    if any(width % widths[0] for width in widths):
        raise ValueError(f"{file}: block_out_channels {widths}: want multiples of the first")
    for name, wanted in (("act_fn", "silu"), ("in_channels", 3), ("out_channels", 3),
                         ("use_quant_conv", True), ("use_post_quant_conv", True),
                         ("mid_block_add_attention", True), ("shift_factor", None)):  # fmt: skip
        if config.get(name, wanted) != wanted:
            raise ValueError(f"{file}: {name} is {config[name]!r}, want {wanted!r}")
    sizes = Sizes(
        channels=widths[0],
        mults=tuple(width // widths[0] for width in widths),
        num_blocks=_number(config, "layers_per_block", 1, file),
        attention=tuple(i for i, name in enumerate(down) if name in ATTENTIVE),
        latent=_number(config, "latent_channels", 4, file),
        codes=_number(config, "num_vq_embeddings", 256, file) if kind == "VQModel" else 0,
        groups=_number(config, "norm_num_groups", 32, file),
        patch=_number(config, "patch_size", 1, file) if patched else 1,
    )
    scale = config.get("scaling_factor", SCALE)
    if not isinstance(scale, int | float) or not scale > 0:
        raise ValueError(f"{file}: scaling_factor is {scale!r}, want a number above 0")
    return sizes, float(scale)


def config_of(sizes: Sizes, scale: float) -> JsonObject:
    """The config.json of diffusers."""
    levels = range(len(sizes.mults))
    attentive = [level in sizes.attention for level in levels]
    kind = "VQModel" if sizes.codes else "AutoencoderKL"
    config: JsonObject = {
        "_class_name": kind if sizes.patch == 1 else PATCHED + kind,
        "act_fn": "silu",
        "block_out_channels": [sizes.channels * mult for mult in sizes.mults],
        "down_block_types": [ATTENTIVE[0] if one else PLAIN[0] for one in attentive],
        "up_block_types": [ATTENTIVE[1] if one else PLAIN[1] for one in reversed(attentive)],
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": sizes.latent,
        "layers_per_block": sizes.num_blocks,
        "norm_num_groups": sizes.groups or 32,
        "scaling_factor": scale,
    }
    if sizes.codes:
        config |= {"num_vq_embeddings": sizes.codes, "vq_embed_dim": sizes.latent}
    if sizes.patch > 1:
        config["patch_size"] = sizes.patch
    return config


def sizes_of_tensors(shapes: Mapping[str, tuple[int, ...]], file: Path) -> Sizes:
    """The sizes of an autoencoder with the names of latent diffusion's code.

    Raises:
      ValueError: it is another network.
    """
    stem, after = shapes.get("encoder.conv_in.weight"), shapes.get("post_quant_conv.weight")
    found = [re.fullmatch(r"encoder\.down\.(\d+)\.(block|attn)\.(\d+)\..*", s) for s in shapes]
    blocks = {(int(m[1]), m[2], int(m[3])) for m in found if m}
    if stem is None or after is None or not stem or not after or not blocks:
        raise ValueError(f"{file}: no autoencoder of latent diffusion's code is in it")
    num_levels, channels = 1 + max(level for level, _, _ in blocks), stem[0]
    widths = [
        shapes.get(f"encoder.down.{level}.block.0.conv2.weight", (0,))[0]
        for level in range(num_levels)
    ]
    if not all(width and width % channels == 0 for width in widths):
        raise ValueError(f"{file}: levels of {widths} channels: want multiples of {channels}")
    return Sizes(
        channels=channels,
        mults=tuple(width // channels for width in widths),
        num_blocks=1 + max(i for _, kind, i in blocks if kind == "block"),
        attention=tuple(sorted({level for level, kind, _ in blocks if kind == "attn"})),
        latent=after[1],
        codes=shapes[CODES][0] if CODES in shapes else 0,
        groups=32,
    )


def _params(sizes: Sizes, stored: Mapping[str, Tensor], layout: Layout, file: Path) -> Params:
    """The parameters, after a check that the file has just those, in their shapes."""
    image = jax.ShapeDtypeStruct((1, sizes.factor, sizes.factor, 3), jnp.float32)
    wanted = shapes_of(Autoencoder(sizes), image)
    sources = lambda ours: source_of(layout, ours, len(sizes.mults))  # noqa: E731
    params, left = matched(wanted, sources, stored, file, "this autoencoder")
    if left:
        raise ValueError(f"{file}: {min(left)} is not of this autoencoder, and {len(left)} in all")
    return params


def _config(folder: Path) -> JsonObject:
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder}: no {CONFIG}: want an autoencoder that diffusers saved")
    return read_downloaded_json(folder / CONFIG)


def _safetensors(file: Path) -> list[Stored]:
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file: download it too")
    return tensors.safetensors_file(file, ())


def _single(file: Path) -> dict[str, Tensor]:
    """The tensors of the autoencoder in a single file, without their prefix."""
    found: dict[str, Tensor]
    if torch_archive.is_archive(file):
        found = dict(torch_archive.read(file))
    else:
        found = {one.name: one for one in tensors.safetensors_file(file, ())}
    return under(found, PREFIX) or found


def _new(name: str) -> str:
    """The name that newer files of diffusers have for a tensor."""
    for old, new in OLD.items():
        name = name.replace(old, new)
    return name


def _list(config: JsonObject, file: Path, which: int) -> list[Json]:
    """One of LISTS, which has at least one entry."""
    value = config.get(LISTS[which])
    if not isinstance(value, list) or not value:
        raise ValueError(f"{file}: {LISTS[which]} is {value!r}, want a list")
    return value


def _number(config: JsonObject, name: str, default: int, file: Path) -> int:
    return _whole(config.get(name, default), name, file)


def _whole(value: Json, name: str, file: Path) -> int:
    if not isinstance(value, int) or not 0 < value <= LARGEST:
        raise ValueError(f"{file}: {name} is {value!r}, want a whole number from 1 to {LARGEST}")
    return value
