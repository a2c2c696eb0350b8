"""T5 encoders in Hugging Face's layout: config.json and tensors, read straight into shards."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
from jax.sharding import Sharding
from jax.typing import DTypeLike
from safetensors.numpy import save_file

from diffjax.encoders import tensors
from diffjax.encoders.tensors import INDEX, WEIGHTS, Stored, weight_files
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
# One table under two names: encoder-only checkpoints carry either, full ones may carry both.
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")
# A full T5 checkpoint holds these beside the encoder.
NOT_ENCODER = ("decoder.", "lm_head.")
# What the reference's configs take for an absent feed_forward_proj, by model_type.
FEED_FORWARD_DEFAULTS = {"mt5": "gated-gelu"}

Place = Callable[[str, jax.ShapeDtypeStruct], Sharding]


def load(
    path: str | os.PathLike,
    place: Place | Sharding | Mapping[str, Any] | None = None,
    dtype: DTypeLike | None = None,
) -> tuple[T5Config, dict]:
    """(config, params) of the folder `path`, in `dtype`, or as stored where that is None.

    Without `place` the params are numpy arrays. With it they are jax arrays of which each device
    reads its own part from the disk, so that the host never holds a tensor whole that is split:
    `place` is one sharding for all, a tree of them like the params, or what gives the sharding of
    `(name, shape and dtype)`, where names are paths like "block_0/attention/q/kernel".

    Tensors of the decoder are ignored.

    Raises:
      ValueError: a tensor is missing, extra or of the wrong shape, or a file cannot be read. The
        message is one line that names it.
    """
    folder = Path(path)
    config = load_config(folder)
    flat: dict[str, Any] = {}
    for ours, (stored, transposed) in _matched(folder, config).items():
        shape = stored.shape[::-1] if transposed else stored.shape
        if place is None:
            flat[ours] = stored.read(None, dtype, transposed)
        else:
            # A device may not have float64.
            own = jax.dtypes.canonicalize_dtype(dtype or stored.dtype)
            leaf = jax.ShapeDtypeStruct(shape, own)
            flat[ours] = _read_shards(stored, transposed, leaf, _sharding_of(place, ours, leaf))
    return config, flax.traverse_util.unflatten_dict(flat, sep="/")


def check(path: str | os.PathLike) -> T5Config:
    """The config of a folder that `load` reads, from its headers; else the ValueError of `load`."""
    folder = Path(path)
    config = load_config(folder)
    _matched(folder, config)
    return config


def save(path: str | os.PathLike, config: T5Config, params: dict) -> None:
    """Writes what `load` reads, into the folder `path`; every bit and dtype of params is kept."""
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
    # The weights go last and by a rename, so that a folder with weights is whole.
    (folder / CONFIG).write_text(json.dumps(_to_json(config), indent=2) + "\n", encoding="utf-8")
    temporary = folder / f"{WEIGHTS}.{os.getpid()}.tmp"
    save_file(stored, temporary, metadata={"format": "pt"})
    temporary.chmod(0o644)  # safetensors leaves it readable by its owner alone
    os.replace(temporary, folder / WEIGHTS)


def load_config(path: str | os.PathLike) -> T5Config:
    """The T5Config in `path`/config.json; what this encoder cannot do is a ValueError."""
    folder = Path(path)
    file = folder / CONFIG
    try:
        raw = tensors.read_json(file)
    except FileNotFoundError:
        have = "no such folder" if not folder.exists() else f"no {CONFIG}"
        raise ValueError(f"{folder}: {have}, want a folder in Hugging Face's layout") from None
    # An absent key has the default of the reference, which for the feed-forward is v1.0's.
    model = raw.get("model_type")
    default = FEED_FORWARD_DEFAULTS.get(model, "relu") if isinstance(model, str) else "relu"
    raw["feed_forward"] = raw.get("feed_forward_proj", default)
    if raw["feed_forward"] not in FEED_FORWARDS:
        have = raw["feed_forward"]
        raise ValueError(f"{file}: feed_forward_proj={have!r}, want {FEED_FORWARDS}")
    fields = dataclasses.fields(T5Config)
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in raw]
    if missing:
        raise ValueError(f"{file}: no {', '.join(missing)}: not a T5 config")
    for field in fields:
        value = raw.get(field.name, field.default)
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if field.type in (int, "int") and not whole:
            raise ValueError(f"{file}: {field.name}={value!r}, want a whole number from 1 up")
    return T5Config(**{f.name: raw[f.name] for f in fields if f.name in raw})


def _matched(folder: Path, config: T5Config) -> dict[str, tuple[Stored, bool]]:
    """our name -> (its tensor in the folder, is that transposed), each there and of its shape."""
    stored = tensors.open_folder(folder, skip=NOT_ENCODER)
    table = [stored.pop(name) for name in EMBEDDINGS if name in stored]
    if len(table) == 2 and not _equal(*table):
        raise ValueError(f"{folder}: {EMBEDDINGS[0]} and {EMBEDDINGS[1]} differ, want one table")
    if table:
        stored[EMBEDDINGS[0]] = table[0]

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
    """The tensor as an array of which every local device reads its own part."""
    arrays: dict[jax.Device, jax.Array] = {}
    for index, devices in _by_part(sharding, leaf.shape):
        part = stored.read(index, leaf.dtype, transposed)
        # Waited for: transfers under way would hold the host's copies of several parts.
        arrays |= {d: jax.device_put(part, d).block_until_ready() for d in devices}
    return jax.make_array_from_single_device_arrays(leaf.shape, sharding, [*arrays.values()])


def _by_part(
    sharding: Sharding, shape: tuple[int, ...]
) -> Iterator[tuple[tensors.Box, list[jax.Device]]]:
    """(a part of the shape, the local devices that hold it): each part once."""
    holders: dict[tuple, tuple[tensors.Box, list[jax.Device]]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        index = index or (slice(None),) * len(shape)
        key = tuple(s.indices(n) for s, n in zip(index, shape, strict=True))
        holders.setdefault(key, (index, []))[1].append(device)
    yield from holders.values()


def _sharding_of(place: Any, name: str, leaf: jax.ShapeDtypeStruct) -> Sharding:
    if isinstance(place, Sharding):
        return place
    if callable(place):
        return place(name, leaf)
    for key in name.split("/"):
        if not isinstance(place, Mapping) or key not in place:
            raise ValueError(f"place: no sharding for {name}, want a tree like the params")
        place = place[key]
    return place


def _equal(one: Stored, other: Stored) -> bool:
    """Whether two tensors are the same to the bit, compared in blocks."""
    if (one.shape, one.dtype) != (other.shape, other.dtype) or not one.shape:
        return False
    for i in range(0, one.shape[0], one.block_rows):
        box = (slice(i, i + one.block_rows), *(slice(None),) * (len(one.shape) - 1))
        if one.read(box).tobytes() != other.read(box).tobytes():
            return False
    return True


def _few(names: list[str]) -> str:
    """The names as a list, the first five of many."""
    return str(names) if len(names) <= 5 else f"{names[:5]} and {len(names) - 5} more"


def _names(config: T5Config) -> Iterator[tuple[str, str, tuple[int, ...], bool]]:
    """(our name, their name, our shape, is theirs transposed) of every tensor."""
    for ours, leaf in flax.traverse_util.flatten_dict(shapes(config), sep="/").items():
        yield ours, _their_name(ours), leaf.shape, ours.endswith("/kernel")


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


def _to_json(config: T5Config) -> dict[str, Any]:
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
