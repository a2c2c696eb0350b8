"""Loads and saves T5 encoders in Hugging Face's layout: config.json and files of tensors."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import flax.traverse_util
import jax
import numpy as np
from jax.sharding import Sharding
from jax.typing import DTypeLike
from safetensors import numpy as safetensors

from diffjax.core.files import write_whole
from diffjax.core.json_types import JsonObject
from diffjax.core.limits import MAX_BLOCKS
from diffjax.core.trees import Params, PyTree
from diffjax.encoders import tensors
from diffjax.encoders.stored import Box, Stored
from diffjax.encoders.tensors import INDEX, WEIGHTS, weight_files
from diffjax.encoders.unreadable import read_downloaded_json
from diffjax.models.t5 import FEED_FORWARDS, T5Config, shapes

__all__ = [
    "CONFIG",
    "EMBEDDINGS",
    "INDEX",
    "WEIGHTS",
    "load",
    "load_config",
    "save",
    "weight_files",
]

CONFIG = "config.json"
# Two names of the embedding table: encoders have one of them, full checkpoints may have both.
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")
# A full T5 checkpoint has these tensors beside the encoder's.
NOT_ENCODER = ("decoder.", "lm_head.")
# The reference's defaults for an absent feed_forward_proj, by model_type; "relu" for others.
FEED_FORWARD_DEFAULTS = {"mt5": "gated-gelu"}

MAX_SIZE = 2**31 - 1

# (name, shape and dtype) -> sharding; names are paths such as "block_0/attention/q/kernel".
ChooseSharding: TypeAlias = Callable[[str, jax.ShapeDtypeStruct], Sharding]


def load(
    path: str | os.PathLike,
    sharding: ChooseSharding | Sharding | Params | None = None,
    dtype: DTypeLike | None = None,
) -> tuple[T5Config, dict]:
    """(config, params) of the folder `path`, in `dtype`, or in the stored dtype if that is None.

    Without `sharding` the params are NumPy arrays. With it they are JAX arrays, and only the part
    of each device is read from the disk, so that the host never holds all of a split tensor.
    sharding: one for all params, a tree of shardings like the params, or a function.

    Tensors of the decoder are ignored.

    Raises:
      ValueError: a tensor is missing, unknown or of the wrong shape, or a file cannot be read. The
        message is one line that names it.
    """
    folder = Path(path)
    config = load_config(folder)
    flat: dict[str, jax.Array | np.ndarray] = {}
    for ours, (stored, transposed) in _matched(folder, config).items():
        shape = stored.shape[::-1] if transposed else stored.shape
        if sharding is None:
            flat[ours] = stored.read(None, dtype, transposed)
        else:
            # JAX may not allow float64.
            own = jax.dtypes.canonicalize_dtype(dtype or stored.dtype)
            leaf = jax.ShapeDtypeStruct(shape, own)
            flat[ours] = _read_shards(stored, transposed, leaf, _sharding_of(sharding, ours, leaf))
    return config, flax.traverse_util.unflatten_dict(flat, sep="/")


def check_folder(path: str | os.PathLike) -> T5Config:
    """The config of a folder, after checking names and shapes of its tensors; raises as `load`."""
    folder = Path(path)
    config = load_config(folder)
    _matched(folder, config)
    return config


def save(path: str | os.PathLike, config: T5Config, params: dict) -> None:
    """Write config and params to the folder `path`, in their dtypes and without loss.

    Raises:
      StorageError: the disk is full or fails.
      ValueError: the params do not fit the config.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    flat = {n: np.asarray(v) for n, v in flax.traverse_util.flatten_dict(params, sep="/").items()}
    stored = {}
    for ours, theirs, wanted, transposed in _names(config):
        if ours not in flat or flat[ours].shape != wanted:
            have = flat[ours].shape if ours in flat else "missing"
            raise ValueError(f"params: {ours} is {have}, the config says {wanted}")
        value = flat.pop(ours)
        stored[theirs] = np.ascontiguousarray(value.T if transposed else value)
    if flat:
        raise ValueError(f"params: {sorted(flat)} are not of a T5 encoder")
    # The weights are written last and all at once, so a folder that has weights is complete.
    (folder / CONFIG).write_text(json.dumps(_to_json(config), indent=2) + "\n", encoding="utf-8")
    write_whole(folder / WEIGHTS, safetensors.save(stored, metadata={"format": "pt"}))


def load_config(path: str | os.PathLike) -> T5Config:
    """The T5Config in the folder `path`.

    Raises:
      ValueError: there is no config, or it is not one of a T5 encoder that this package can run.
    """
    folder = Path(path)
    file = folder / CONFIG
    try:
        raw = read_downloaded_json(file)
    except FileNotFoundError:
        have = "no such folder" if not folder.exists() else f"no {CONFIG}"
        raise ValueError(f"{folder}: {have}, want a folder in Hugging Face's layout") from None
    # An absent key means the default of the reference, which is T5 v1.0 for the feed-forward.
    model = raw.get("model_type")
    default = FEED_FORWARD_DEFAULTS.get(model, "relu") if isinstance(model, str) else "relu"
    raw["feed_forward"] = raw.get("feed_forward_proj", default)
    if raw["feed_forward"] not in FEED_FORWARDS:
        kind = raw["feed_forward"]
        raise ValueError(f"{file}: feed_forward_proj={kind!r}, want {FEED_FORWARDS}")
    fields = dataclasses.fields(T5Config)
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in raw]
    if missing:
        raise ValueError(f"{file}: no {', '.join(missing)}: not a T5 config")
    for field in fields:
        value = raw.get(field.name, field.default)
        if field.type not in (int, "int"):
            continue
        most = MAX_BLOCKS if field.name == "num_layers" else MAX_SIZE
        fits = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
        if not fits:
            shown = repr(value)[:40]
            raise ValueError(f"{file}: {field.name}={shown}, want a whole number from 1 to {most}")
    known: dict[str, Any] = {f.name: raw[f.name] for f in fields if f.name in raw}
    return T5Config(**known)


def _matched(folder: Path, config: T5Config) -> dict[str, tuple[Stored, bool]]:
    """For each of our names, (its tensor in the folder, whether it is stored transposed)."""
    stored = tensors.open_folder(folder, skip=NOT_ENCODER)
    table = [stored.pop(name) for name in EMBEDDINGS if name in stored]
    if len(table) == 2 and not _equal(*table):
        raise ValueError(f"{folder}: {EMBEDDINGS[0]} and {EMBEDDINGS[1]} differ, want one table")
    if table:
        stored[EMBEDDINGS[0]] = table[0]

    there = len({name.split(".")[2] for name in stored if name.startswith("encoder.block.")})
    if there != config.num_layers:  # before a network of so many is built
        raise ValueError(
            f"{folder}: {CONFIG} says num_layers={config.num_layers}, the tensors have {there}"
        )
    matched = {}
    for ours, theirs, wanted, transposed in _names(config):
        if theirs not in stored:
            hint = f" (or {EMBEDDINGS[1]})" if theirs == EMBEDDINGS[0] else ""
            raise ValueError(f"{folder}: tensor {theirs}{hint} is missing")
        tensor = stored.pop(theirs)
        if tensor.shape != (wanted[::-1] if transposed else wanted):
            want = wanted[::-1] if transposed else wanted
            raise ValueError(
                f"{folder}: tensor {theirs} has shape {tensor.shape}, {CONFIG} says {want}"
            )
        matched[ours] = tensor, transposed
    if stored:
        raise ValueError(f"{folder}: tensors {_few(sorted(stored))} are not of a T5 encoder")
    return matched


def _read_shards(
    stored: Stored, transposed: bool, leaf: jax.ShapeDtypeStruct, sharding: Sharding
) -> jax.Array:
    """The tensor as a JAX array; only the parts of local devices are read."""
    arrays: dict[jax.Device, jax.Array] = {}
    for index, devices in _by_part(sharding, leaf.shape):
        part = stored.read(index, leaf.dtype, transposed)
        # Wait for each transfer, so that only one part is in the memory of the host.
        arrays |= {d: jax.device_put(part, d).block_until_ready() for d in devices}
    return jax.make_array_from_single_device_arrays(leaf.shape, sharding, [*arrays.values()])


def _by_part(sharding: Sharding, shape: tuple[int, ...]) -> Iterator[tuple[Box, list[jax.Device]]]:
    """(a part of the shape, the local devices that hold it) for each different part."""
    holders: dict[tuple, tuple[Box, list[jax.Device]]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        index = index or (slice(None),) * len(shape)
        key = tuple(s.indices(n) for s, n in zip(index, shape, strict=True))
        holders.setdefault(key, (index, []))[1].append(device)
    yield from holders.values()


def _sharding_of(
    sharding: ChooseSharding | Sharding | Params, name: str, leaf: jax.ShapeDtypeStruct
) -> Sharding:
    if isinstance(sharding, Sharding):
        return sharding
    if callable(sharding):
        return sharding(name, leaf)
    found: PyTree = sharding
    for key in name.split("/"):
        if not isinstance(found, Mapping) or key not in found:
            raise ValueError(f"sharding: none for {name}, want a tree like the params")
        found = found[key]
    return found


def _equal(one: Stored, other: Stored) -> bool:
    """Whether two tensors have equal bits; they are read and compared in blocks."""
    if (one.shape, one.dtype) != (other.shape, other.dtype) or not one.shape:
        return False
    for i in range(0, one.shape[0], one.block_rows):
        box = (slice(i, i + one.block_rows), *(slice(None),) * (len(one.shape) - 1))
        if one.read(box).tobytes() != other.read(box).tobytes():
            return False
    return True


def _few(names: list[str]) -> str:
    """The names as a list; of many only the first five."""
    return str(names) if len(names) <= 5 else f"{names[:5]} and {len(names) - 5} more"


@functools.lru_cache(maxsize=8)  # a folder is checked first and loaded later
def _names(config: T5Config) -> tuple[tuple[str, str, tuple[int, ...], bool], ...]:
    """(our name, their name, our shape, whether theirs is transposed) of every tensor."""
    leaves = flax.traverse_util.flatten_dict(shapes(config), sep="/").items()
    return tuple(
        (ours, _their_name(ours), leaf.shape, ours.endswith("/kernel")) for ours, leaf in leaves
    )


def _their_name(ours: str) -> str:
    """`block_0/attention/q/kernel` -> `encoder.block.0.layer.0.SelfAttention.q.weight`."""
    top, *rest = ours.split("/")
    if not top.startswith("block_"):
        return {
            "embedding": EMBEDDINGS[0],
            "final_norm": "encoder.final_layer_norm.weight",
            "relative_bias": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        }[top]
    part = {
        "attention_norm": "layer.0.layer_norm",
        "attention": "layer.0.SelfAttention",
        "feed_forward_norm": "layer.1.layer_norm",
        "feed_forward": "layer.1.DenseReluDense",
    }[rest[0]]
    return ".".join(["encoder.block", top.removeprefix("block_"), part, *rest[1:-1], "weight"])


def _to_json(config: T5Config) -> JsonObject:
    raw = dataclasses.asdict(config)
    gated = config.feed_forward.startswith("gated-")
    activations = {"relu": "relu", "gated-gelu": "gelu_new", "gated-silu": "silu"}
    raw["feed_forward_proj"] = raw.pop("feed_forward")
    return raw | {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        "dense_act_fn": activations[config.feed_forward],
        "is_gated_act": gated,
        "is_encoder_decoder": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": not gated,
    }
