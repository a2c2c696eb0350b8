"""T5 encoders in Hugging Face's layout: config.json with model.safetensors, or with its shards."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from diffjax.text.t5 import FEED_FORWARDS, T5Config, shapes

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# One table under two names: encoder-only checkpoints carry either, full ones may carry both.
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")
# A full T5 checkpoint holds these beside the encoder.
NOT_ENCODER = ("decoder.", "lm_head.")


def load(path: str | os.PathLike) -> tuple[T5Config, dict]:
    """(config, params) of the folder `path`; params are numpy arrays of the stored dtype.

    Tensors of the decoder are ignored. Any other that is missing, extra or of the wrong shape is a
    ValueError that names it.
    """
    folder = Path(path)
    config = load_config(folder)
    stored = {n: t for n, t in _tensors(folder).items() if not n.startswith(NOT_ENCODER)}
    table = [stored.pop(name) for name in EMBEDDINGS if name in stored]
    if len(table) == 2 and not np.array_equal(table[0], table[1]):
        raise ValueError(f"{folder}: {EMBEDDINGS[0]} and {EMBEDDINGS[1]} differ, want one table")
    if table:
        stored[EMBEDDINGS[0]] = table[0]

    flat = {}
    for ours, theirs, wanted, transposed in _names(config):
        if theirs not in stored:
            hint = f" (or {EMBEDDINGS[1]})" if theirs == EMBEDDINGS[0] else ""
            raise ValueError(f"{folder}: tensor {theirs}{hint} is missing")
        value = stored.pop(theirs)
        value = value.T if transposed and value.ndim == 2 else value
        if value.shape != wanted:
            have, want = (s[::-1] if transposed else s for s in (value.shape, wanted))
            raise ValueError(f"{folder}: tensor {theirs} has shape {have}, {CONFIG} says {want}")
        flat[ours] = value
    if stored:
        raise ValueError(f"{folder}: tensors {sorted(stored)} are not of a T5 encoder")
    return config, flax.traverse_util.unflatten_dict(flat, sep="/")


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


def load_config(folder: Path) -> T5Config:
    """The T5Config in `folder`/config.json; what this encoder cannot do is a ValueError."""
    try:
        raw = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder}: no {CONFIG}, want a folder in Hugging Face's layout") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / CONFIG}: not JSON: {error}") from None
    # An absent key has the default of the reference, which for the feed-forward is v1.0's.
    raw["feed_forward"] = raw.get("feed_forward_proj", "relu")
    if raw["feed_forward"] not in FEED_FORWARDS:
        have = raw["feed_forward"]
        raise ValueError(f"{folder / CONFIG}: feed_forward_proj={have!r}, want {FEED_FORWARDS}")
    fields = dataclasses.fields(T5Config)
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in raw]
    if missing:
        raise ValueError(f"{folder / CONFIG}: no {', '.join(missing)}: not a T5 config")
    return T5Config(**{f.name: raw[f.name] for f in fields if f.name in raw})


def weight_files(path: str | os.PathLike) -> list[Path]:
    """The safetensors files of a checkpoint folder, in order; none is a ValueError."""
    folder = Path(path)
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if (folder / INDEX).exists():
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return [folder / name for name in sorted(set(index["weight_map"].values()))]
    raise ValueError(
        f"{folder}: neither {WEIGHTS} nor {INDEX}; pickled .bin files are not read, "
        "convert them with transformers' save_pretrained"
    )


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="np") as reader:
                for name in reader.keys():  # noqa: SIM118 (it is not a dict)
                    if not name.startswith(NOT_ENCODER):
                        tensors[name] = reader.get_tensor(name)
        except FileNotFoundError:
            raise ValueError(f"{file}: named by {INDEX} but missing") from None
        except SafetensorError as error:
            raise ValueError(f"{file}: not a safetensors file: {error}") from None
    return tensors


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
    gated = config.feed_forward == "gated-gelu"
    raw["feed_forward_proj"] = raw.pop("feed_forward")
    return raw | {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        "dense_act_fn": "gelu_new" if gated else "relu",
        "is_gated_act": gated,
        "is_encoder_decoder": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": not gated,
    }
