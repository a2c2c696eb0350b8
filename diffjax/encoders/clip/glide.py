"""The CLIP of noised pictures that OpenAI released with GLIDE, a folder with its two files.

It is told the step of a cosine chain of 64 px pictures (Nichol et al. 2022, sec. 2.4). Its logits
are 100 times the cosines. Of its table of 65,536 tokens those of CLIP's vocabulary are used.
"""

import functools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.core.trees import Params
from diffjax.diffusion.table import cosine_betas, logsnr_table, steps_of
from diffjax.encoders import torch_archive
from diffjax.encoders.clip import vocabulary
from diffjax.encoders.matching import Tensor, matched
from diffjax.encoders.source import Source
from diffjax.models.clip.clip import CLIP
from diffjax.models.clip.sizes import CLIPConfig, Tower

IMAGE, TEXT = "clip_image_enc.pt", "clip_text_enc.pt"
HEAD, SCALE = 64, 100.0  # the width of each head, and how much a cosine counts
_TOP = {
    "image/patch/kernel": ("image.blocks.input.patch_proj", (2, 3, 1, 0)),
    "image/levels": ("image.blocks.input.w_t", (0, 1)),
    "image/positions": ("image.blocks.input.w_pos", (0, 1)),
    "image/projection": ("image.blocks.output.f.w", (1, 0)),
    "text/tokens": ("text.blocks.input.w_voc", (0, 1)),
    "text/positions": ("text.blocks.input.w_pos", (0, 1)),
    "text/projection": ("text.blocks.output.f.w", (1, 0)),
}
_NORMS = {
    "image/norm_in": "image.blocks.input.ln", "image/norm_out": "image.blocks.output.ln",
    "text/norm_out": "text.blocks.output.ln",
}  # fmt: skip
_PARTS = {
    "attention_norm": ("f_attn.ln",),
    "qkv": ("f_attn.f_q", "f_attn.f_k", "f_attn.f_v"),
    "attention_out": ("f_attn.f_c",),
    "feed_forward_norm": ("f_mlp.ln",),
    "up": ("f_mlp.f_1",),
    "down": ("f_mlp.f_2",),
}
_BLOCK = re.compile(r"(image|text)/blocks/block_(\d+)/(\w+)")


def is_one(path: Path) -> bool:
    """Whether the folder has the two files."""
    return all((path / name).is_file() for name in (IMAGE, TEXT))


def files(path: Path) -> list[Path]:
    """The two files of a folder."""
    return [path / IMAGE, path / TEXT]


def check(path: Path) -> CLIPConfig:
    """The sizes of the network; raises as `load`."""
    return load(path)[0]


@functools.lru_cache(maxsize=1)
def load(path: Path) -> tuple[CLIPConfig, Params]:
    """(config, float32 NumPy parameters of `CLIP`) of a folder.

    Raises:
      ValueError: a tensor is missing, of another shape, or none of such a CLIP's; one line.
    """
    stored = _tensors(path)
    config = _config_of(stored, path)
    stored["text.blocks.input.w_voc"] = stored["text.blocks.input.w_voc"][: config.vocabulary]
    for name in [name for name in stored if name.endswith("f_q.b")]:  # its keys have no biases
        stored[name.replace("f_q.b", "f_k.b")] = np.zeros_like(stored[name])
    image = jnp.zeros((1, config.size_px, config.size_px, 3))
    made = functools.partial(CLIP(config).init, logsnr=jnp.zeros(1))
    ids = jnp.zeros((1, 2), jnp.int32)
    wanted = dict(jax.eval_shape(made, jax.random.key(0), image, ids)["params"])
    del wanted["log_scale"]
    tensors: dict[str, Tensor] = dict(stored)
    params, left = matched(wanted, source_of, tensors, path, "GLIDE's noised CLIP")
    if left:
        raise ValueError(f"{path}: {min(left)} is not of GLIDE's noised CLIP")
    single = jax.tree.map(lambda x: np.asarray(x, np.float32), params)
    return config, {**single, "log_scale": np.float32(math.log(SCALE))}


def source_of(ours: str) -> Source:
    """Where the parameter at the path `ours` lies."""
    if ours in _TOP:
        name, axes = _TOP[ours]
        return Source((name,), axes)
    layer, _, kind = ours.rpartition("/")
    norm = {"scale": "g", "bias": "b"}
    if layer in _NORMS:
        return Source((f"{_NORMS[layer]}.{norm[kind]}",), (0,))
    match = _BLOCK.fullmatch(layer)
    assert match is not None, ours
    tower, number, part = match.groups()
    suffix = norm[kind] if part.endswith("norm") else {"kernel": "w", "bias": "b"}[kind]
    names = tuple(f"{tower}.blocks.block_{number}.{one}.{suffix}" for one in _PARTS[part])
    return Source(names, (1, 0) if kind == "kernel" else (0,))


def _tensors(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, prefix in ((IMAGE, "image."), (TEXT, "text.")):
        own = torch_archive.read(path / name)
        found |= {f"{prefix}{key}": np.asarray(tensor) for key, tensor in own.items()}
    return found


def _config_of(stored: dict[str, np.ndarray], path: Path) -> CLIPConfig:
    def shape(ours: str) -> tuple[int, ...]:
        (name,), axes, _ = source_of(ours)
        if name not in stored or len(stored[name].shape) != len(axes):
            raise ValueError(f"{path}: no tensor {name}: not GLIDE's noised CLIP")
        return tuple(stored[name].shape[axis] for axis in axes)

    def tower(part: str, width: int) -> Tower:
        first = f"{part}/blocks/block_{{}}/up/kernel"
        inside = (source_of(first.format(i)).names[0] for i in range(len(stored) + 1))
        layers = next(i for i, name in enumerate(inside) if name not in stored)
        return Tower(width, layers, max(width // HEAD, 1), shape(first.format(0))[1])

    patch, _, _, width = shape("image/patch/kernel")
    side = math.isqrt(max(shape("image/positions")[0] - 1, 0)) * patch
    ids, text_width = shape("text/tokens")
    steps = shape("image/levels")[0]
    return CLIPConfig(
        image=tower("image", width),
        text=tower("text", text_width),
        size_px=side,
        patch=patch,
        embed=shape("image/projection")[1],
        vocabulary=min(ids, vocabulary.NUM_OPENAI),
        length=shape("text/positions")[0],
        activation="gelu",
        noised=True,
        levels=steps,
        step=steps_of(logsnr_table(cosine_betas(steps))),
    )
