"""Loads CLIPs of OpenAI, open_clip and Hugging Face, and saves ours as Hugging Face does."""

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from safetensors import numpy as safetensors

from diffjax.core import trees
from diffjax.core.files import write_whole
from diffjax.core.json_types import JsonObject
from diffjax.core.trees import Params
from diffjax.encoders import tensors, torch_archive
from diffjax.encoders.clip import described, glide
from diffjax.encoders.clip.described import Said
from diffjax.encoders.clip.names import TEXT_PREFIX, Layout, Source, source_of
from diffjax.encoders.unreadable import read_downloaded_json
from diffjax.models.clip.backbone import States
from diffjax.models.clip.clip import CLIP
from diffjax.models.clip.sizes import CLIPConfig, Told, Tower

HF_CONFIG, OPEN_CONFIG, PREPROCESSOR = (
    "config.json", "open_clip_config.json", "preprocessor_config.json",
)  # fmt: skip
# The files of open_clip, the preferred one first.
OPEN_FILES = ("open_clip_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin")
# Tensors that some versions store beside the weights.
IGNORED = (
    "input_resolution", "context_length", "vocab_size", "attn_mask", "text.attn_mask",
    "text_model.embeddings.position_ids", "vision_model.embeddings.position_ids",
)  # fmt: skip

Read: TypeAlias = Callable[[], np.ndarray]


class Found(NamedTuple):
    """A checkpoint whose tensors are not read yet, with their shapes. source: for messages.

    said: what the files beside the tensors say of the network. prefix: see `names.TEXT_PREFIX`.
    """

    read: Mapping[str, Read]
    shapes: Mapping[str, tuple[int, ...]]
    layout: Layout
    said: Said
    source: Path
    prefix: str = ""


def load(path: Path) -> tuple[CLIPConfig, Params]:
    """(config, float32 NumPy parameters of `CLIP`) of a folder, or of a file of OpenAI's.

    Raises:
      ValueError: the names or shapes of tensors are not those of a CLIP with a ViT, or a file
        cannot be read. One line that names it.
    """
    if glide.is_one(path):
        return glide.load(path)
    found = opened(path)
    config = config_of(found)
    flat = {}
    for ours, source, _ in _matched(found, config):
        parts = [np.asarray(found.read[name](), np.float32) for name in source.names]
        flat[ours] = source.ours(np.concatenate(parts) if parts[1:] else parts[0])
    return config, flax.traverse_util.unflatten_dict(flat, sep="/")


def check(path: Path) -> CLIPConfig:
    """The config, after names and shapes of all tensors were checked; raises as `load`."""
    if glide.is_one(path):
        return glide.check(path)
    found = opened(path)
    config = config_of(found)
    _matched(found, config)
    return config


def save(path: Path, config: CLIPConfig, params: Params, mark: str = "") -> None:
    """Writes a CLIP to a folder in Hugging Face's layout; kernels of a backbone are float16.

    mark: the fingerprint of the text encoder whose states it is told.

    Raises:
      StorageError: the disk is full or fails.
    """
    path.mkdir(parents=True, exist_ok=True)
    stored: dict[str, np.ndarray] = {}
    for ours, leaf in trees.named_leaves(params).items():
        source = source_of("hugging_face", ours)
        half = ours.startswith("image/backbone/") and ours.endswith("/kernel")
        joined = source.theirs(np.asarray(leaf, np.float16 if half else np.float32))
        parts = np.split(joined, len(source.names)) if source.names[1:] else [joined]
        stored |= dict(zip(source.names, (part.copy() for part in parts), strict=True))
    beside = {HF_CONFIG: described.hugging_face(config, mark)}
    if not config.backbone:
        beside[PREPROCESSOR] = described.preprocessor(config)
    for name, content in beside.items():
        (path / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    write_whole(path / tensors.WEIGHTS, safetensors.save(stored, metadata={"format": "pt"}))


def files(path: Path) -> list[Path]:
    """The files that the network depends on: of a folder its config and weights."""
    if glide.is_one(path):
        return glide.files(path)
    if path.is_file():
        return [path]
    if (path / OPEN_CONFIG).exists():
        return [path / OPEN_CONFIG, _open_file(path)]
    there = [path / name for name in (HF_CONFIG, PREPROCESSOR) if (path / name).exists()]
    return [*there, *tensors.weight_files(path)]


def opened(path: Path) -> Found:
    """The tensors of a checkpoint, and what is said of it.

    Raises:
      ValueError: see `load`.
    """
    if path.is_file():
        return _of_file(path, described.OPENAI)
    if (path / OPEN_CONFIG).exists():
        said = described.of_open_clip(_json(path / OPEN_CONFIG), path / OPEN_CONFIG)
        return _of_file(_open_file(path), said)
    if not (path / HF_CONFIG).exists():
        raise ValueError(f"{path}: neither {HF_CONFIG} nor {OPEN_CONFIG}: not a CLIP")
    pixels = _json(path / PREPROCESSOR) if (path / PREPROCESSOR).exists() else {}
    said = described.of_hugging_face(_json(path / HF_CONFIG), pixels, path / HF_CONFIG)
    stored = tensors.open_folder(path, skip=IGNORED)
    read: dict[str, Read] = {name: one.read for name, one in stored.items()}
    shapes = {name: one.shape for name, one in stored.items()}
    return Found(read, shapes, "hugging_face", said, path)


def _json(file: Path) -> JsonObject:
    return read_downloaded_json(file)


def _open_file(path: Path) -> Path:
    for name in OPEN_FILES:
        if (path / name).exists():
            return path / name
    raise ValueError(f"{path}: none of {', '.join(OPEN_FILES)}")


def _of_file(file: Path, said: Said) -> Found:
    """The tensors of a file with the names of OpenAI and open_clip."""
    if torch_archive.is_archive(file):
        arrays = torch_archive.read(file)
        read: dict[str, Read] = {
            name: functools.partial(np.asarray, array) for name, array in arrays.items()
        }
        shapes = {name: array.shape for name, array in arrays.items()}
    else:
        stored = {one.name: one for one in tensors.safetensors_file(file, ())}
        read = {name: one.read for name, one in stored.items()}
        shapes = {name: one.shape for name, one in stored.items()}
    prefix = TEXT_PREFIX if f"{TEXT_PREFIX}token_embedding.weight" in shapes else ""
    return Found(read, shapes, "open_clip", said, file, prefix)


def config_of(found: Found) -> CLIPConfig:
    """The sizes by the shapes of the tensors; heads, activation and pixels as the files say.

    Raises:
      ValueError: a tensor that tells a size is missing.
    """

    def shape(ours: str) -> tuple[int, ...]:
        (name, *_), axes, _ = source_of(found.layout, ours, found.prefix)
        if name not in found.shapes:
            raise ValueError(f"{found.source}: no tensor {name}: not a CLIP with a ViT")
        there = found.shapes[name]
        return tuple(there[axis] for axis in axes)

    def tower(part: str, width: int, heads: int) -> Tower:
        def inside(i: int) -> str:
            up = f"{part}/blocks/block_{i}/up/kernel"
            return source_of(found.layout, up, found.prefix).names[0]

        layers = next(i for i in range(len(found.shapes) + 1) if inside(i) not in found.shapes)
        hidden = shape(f"{part}/blocks/block_0/up/kernel")[1]
        return Tower(width, layers, heads or max(width // 64, 1), hidden)

    said, told = found.said, None
    if said.encoder:
        states, text_width = shape("text/up/kernel")
        text, told = Tower(text_width, 0, 1, 0), Told(said.encoder, states)
        vocabulary, length = 0, said.length
    else:
        vocabulary, text_width = shape("text/tokens")
        text, length = tower("text", text_width, said.text_heads), shape("text/positions")[0]
    if said.backbone:
        image, patch, size_px = Tower(shape("image/up/kernel")[1], 0, 1, 0), 1, said.size_px
        embed = shape("image/down/kernel")[1]
    else:
        patch, _, _, width = shape("image/patch/kernel")
        image = tower("image", width, said.image_heads)
        size_px = math.isqrt(max(shape("image/positions")[0] - 1, 0)) * patch
        embed = shape("image/projection")[1]
    return CLIPConfig(
        image=image,
        text=text,
        size_px=size_px,
        patch=patch,
        embed=embed,
        vocabulary=vocabulary,
        length=length,
        activation=said.activation,
        mean=said.mean,
        std=said.std,
        backbone=said.backbone,
        told=told,
    )


def _matched(found: Found, config: CLIPConfig) -> list[tuple[str, Source, tuple[int, ...]]]:
    """(our name, its source, our shape) of every parameter, after checking all tensors.

    Raises:
      ValueError: a tensor is missing, unknown, or of another shape.
    """
    matched, used = [], set(IGNORED)
    for ours, wanted in shapes(config):
        source = source_of(found.layout, ours, found.prefix)
        for name in source.names:
            if name not in found.shapes:
                raise ValueError(f"{found.source}: tensor {name} is missing")
            if found.shapes[name] != source.shape(wanted):
                raise ValueError(
                    f"{found.source}: tensor {name} has shape {found.shapes[name]}, want "
                    f"{source.shape(wanted)}"
                )
        used |= set(source.names)
        matched.append((ours, source, wanted))
    if others := sorted(found.shapes.keys() - used):
        raise ValueError(f"{found.source}: tensors {others[:5]} are not of a CLIP with a ViT")
    return matched


def shapes(config: CLIPConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The name and shape of every parameter of `CLIP(config)`."""
    image = jnp.zeros((1, config.size_px, config.size_px, 3))
    text: Int[Array, "b l"] | States = jnp.zeros((1, 2), jnp.int32)
    if config.told:
        text = States(jnp.zeros((1, 2, config.told.width)), jnp.ones((1, 2), bool))
    made = jax.eval_shape(CLIP(config).init, jax.random.key(0), image, text)["params"]
    for name, leaf in trees.named_leaves(made).items():
        yield name, leaf.shape
