"""The prior of Karlo, as diffusers saves it: a folder with a PriorTransformer and its scheduler."""

import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.core.json_types import JsonObject
from diffjax.core.trees import Params
from diffjax.encoders import tensors
from diffjax.encoders.matching import Tensor, matched, read
from diffjax.encoders.source import Source
from diffjax.encoders.unreadable import read_downloaded_json
from diffjax.models.prior import PLACES_AFTER, Prior

CLASS, SCHEDULER = "PriorTransformer", "UnCLIPScheduler"
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
FOLDER, SCHEDULER_FILE = "prior", "prior_scheduler/scheduler_config.json"
LARGEST = 2**20  # of what a config says
# What a config may say only so; a key that it lacks has this value too.
FIXED: JsonObject = {
    "additional_embeddings": PLACES_AFTER, "time_embed_act_fn": "silu", "norm_in_type": None,
    "embedding_proj_norm_type": None, "encoder_hid_proj_type": "linear", "added_emb_type": "prd",
    "time_embed_dim": None, "embedding_proj_dim": None, "clip_embed_dim": None,
}  # fmt: skip
# What the noise of such a prior is: the cosine table of 1,000 steps, and it predicts z_0.
NOISE: JsonObject = {
    "_class_name": SCHEDULER, "num_train_timesteps": 1000, "variance_type": "fixed_small_log",
    "prediction_type": "sample",
}  # fmt: skip
_LAYERS = {
    "noise/dense_0": ("time_embedding.linear_1",),
    "noise/dense_1": ("time_embedding.linear_2",),
    "x_in": ("proj_in",),
    "text_vector_in": ("embedding_proj",),
    "text_in": ("encoder_hidden_states_proj",),
    "norm_out": ("norm_out",),
    "out": ("proj_to_clip_embeddings",),
    "attention_norm": ("norm1",),
    "qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attention_out": ("attn1.to_out.0",),
    "feed_forward_norm": ("norm3",),
    "up": ("ff.net.0.proj",),
    "down": ("ff.net.2",),
}
# Parameters of theirs with axes of length 1 in front, and ours.
_ALONE = {"positional_embedding": "positions", "prd_embedding": "query"}
_STATISTICS = ("clip_mean", "clip_std")


class Loaded(NamedTuple):
    """A prior of others. mean, std [e]: of each number of the CLIP vectors that it makes.

    width: of these vectors and of the states of text tokens.
    """

    model: Prior
    params: Params
    mean: np.ndarray
    std: np.ndarray
    width: int


def is_one(where: Path) -> bool:
    """Whether the folder holds such a prior, or is the folder of one."""
    file = folder_of(where) / CONFIG
    try:
        return file.is_file() and read_downloaded_json(file).get("_class_name") == CLASS
    except ValueError:
        return False


def folder_of(where: Path) -> Path:
    """The folder of the network: `prior` in that of a whole Karlo, or the folder itself."""
    return where / FOLDER if (where / FOLDER / CONFIG).is_file() else where


def load(where: Path) -> Loaded:
    """The prior of a folder.

    Raises:
      ValueError: it is another network or has other noise, or a file is damaged; one line.
    """
    folder = folder_of(where)
    model, width = model_of(read_downloaded_json(folder / CONFIG), folder / CONFIG)
    check_noise(where)
    stored: dict[str, Tensor] = dict(tensors.open_safetensors(folder, WEIGHTS))
    if model.num_blocks > len(stored):
        raise ValueError(f"{folder}: {len(stored)} tensors are fewer than such a prior has blocks")
    for name in (*_ALONE, *_STATISTICS):
        if name in stored:
            whole = read(stored[name])
            ones = 2 if name == "prd_embedding" else 1
            if whole.shape[:ones] != (1,) * ones:
                raise ValueError(f"{folder}: {name} is {whole.shape}, want 1 in front")
            stored[name] = whole.reshape(whole.shape[ones:])
    length = model.length
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jnp.zeros((1, width)), jnp.zeros(1),
        jnp.zeros((1, length, width)), jnp.ones((1, length), bool), jnp.zeros((1, width)),
    )["params"]  # fmt: skip
    params, left = matched(shapes, source_of, stored, folder, "this prior")
    mean, std = (_statistic(left, name, width, folder) for name in _STATISTICS)
    if left:
        raise ValueError(f"{folder}: {min(left)} is not of this prior, and {len(left)} in all")
    return Loaded(model, params, mean, std, width)


def _statistic(left: dict[str, Tensor], name: str, width: int, folder: Path) -> np.ndarray:
    """The mean or the deviation of each number of a vector."""
    found = np.asarray(read(left.pop(name)) if name in left else (), np.float32)
    if found.shape != (width,) or not np.isfinite(found).all():
        raise ValueError(f"{folder}: {name} is {found.shape}, want ({width},), all finite")
    return found


def model_of(config: JsonObject, file: Path) -> tuple[Prior, int]:
    """(the network of a config.json, the width of its vectors).

    Raises:
      ValueError: it is another network; one line.
    """
    if config.get("_class_name") != CLASS:
        raise ValueError(f"{file}: _class_name is {config.get('_class_name')!r}, want {CLASS!r}")
    for name, wanted in FIXED.items():
        if config.get(name, wanted) != wanted:
            raise ValueError(f"{file}: {name} is {config[name]!r}, want {wanted!r}")
    usual = {
        "num_attention_heads": 32, "attention_head_dim": 64, "num_layers": 20,
        "embedding_dim": 768, "num_embeddings": 77,
    }  # fmt: skip
    sizes = {name: config.get(name, default) for name, default in usual.items()}
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= LARGEST:
            raise ValueError(f"{file}: {name} is {size!r}, want a whole number to {LARGEST}")
    heads, head_width, blocks, width, length = (int(str(size)) for size in sizes.values())
    made = Prior(
        width=heads * head_width,
        num_blocks=blocks,
        num_heads=heads,
        length=length,
        steps=lambda logsnr: logsnr,
    )
    return made, width


def check_noise(where: Path) -> None:
    """Checks that the scheduler beside a prior, if there is one, says its noise.

    Raises:
      ValueError: it says another; one line.
    """
    file = where / SCHEDULER_FILE
    if not file.is_file():
        return
    said = read_downloaded_json(file)
    for name, wanted in NOISE.items():
        if said.get(name, wanted) != wanted:
            raise ValueError(f"{file}: {name} is {said[name]!r}, want {wanted!r}")


def source_of(ours: str) -> Source:
    """Where a parameter of `models.prior.Prior` lies."""
    for theirs, name in _ALONE.items():
        if ours == name:
            return Source((theirs,), (0, 1) if name == "positions" else (0,))
    layer, _, kind = ours.rpartition("/")
    block = re.fullmatch(r"block_(\d+)/(\w+)", layer)
    prefix, layer = (f"transformer_blocks.{block[1]}.", block[2]) if block else ("", layer)
    suffix = "bias" if kind == "bias" else "weight"
    names = tuple(f"{prefix}{name}.{suffix}" for name in _LAYERS[layer])
    return Source(names, (1, 0) if kind == "kernel" else (0,))
