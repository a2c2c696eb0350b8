"""The layout of diffusers' diffusion transformers and what they are given. Needs only NumPy."""

from typing import Any

import numpy as np

from diffjax.core.trees import PyTree
from tools.inputs import random_tensors

Tensors = dict[str, np.ndarray]
# A small network in the layout of the paper's, with the classes 0 to 9.
SMALL: dict[str, Any] = dict(
    num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=2,
    sample_size=8, patch_size=2, num_embeds_ada_norm=10, norm_eps=1e-6,
)  # fmt: skip
# A small block of two streams.
JOINT: dict[str, Any] = dict(dim=32, num_attention_heads=2, attention_head_dim=16)
EMBEDDER = "norm1.emb"  # diffusers has one in each block; the paper's network has one in all


def tensors(seed: int, shapes: dict[str, tuple[int, ...]]) -> Tensors:
    """Random tensors for these names; all blocks have the embedder of the first."""
    made = random_tensors.transformer(seed, shapes)
    return {name: made[_of_the_first(name)] for name in shapes}


def given(sample_size: int = 8, channels: int = 4) -> Tensors:
    """Two noisy latents [b h w c], their log SNRs and classes, of which one is no class."""
    draw = np.random.default_rng(3)
    x_t = draw.integers(-256, 257, (2, sample_size, sample_size, channels)) / 128
    return {
        "x_t": x_t.astype(np.float32),
        "logsnr_t": np.array([-3.5, 2.0], np.float32),
        "label": np.array([7, 10], np.int32),
    }


def streams(width: int = 32) -> Tensors:
    """Two rows of the streams of a joint block: pixels, text, and the embedding before its silu."""
    draw = np.random.default_rng(4)
    shapes = {"h": (2, 6, width), "text": (2, 5, width), "emb": (2, width)}
    return {
        name: (draw.integers(-256, 257, shape) / 128).astype(np.float32)
        for name, shape in shapes.items()
    }


def params_of(found: Tensors, num_blocks: int) -> dict[str, PyTree]:
    """The parameters of `models.dit.DiT` from the tensors of a DiTTransformer2DModel."""
    first = f"transformer_blocks.0.{EMBEDDER}"
    patches = found["pos_embed.proj.weight"]  # [width c p q]
    kernel = patches.transpose(2, 3, 1, 0).reshape(-1, len(patches))
    params: dict[str, PyTree] = {
        "conditioning": {
            "noise": {
                f"dense_{i}": dense(found, f"{first}.timestep_embedder.linear_{i + 1}")
                for i in (0, 1)
            },
            "label": {"embedding": found[f"{first}.class_embedder.embedding_table.weight"]},
        },
        "stem": {"kernel": kernel, "bias": found["pos_embed.proj.bias"]},
        "head": {
            "scale_shift": dense(found, "proj_out_1"),
            "dense": dense(found, "proj_out_2"),
        },
    }
    for i in range(num_blocks):
        at = f"transformer_blocks.{i}."
        params[f"block_{i}"] = {
            "pixels": {
                "modulation": dense(found, f"{at}norm1.linear"),
                **_attention(found, f"{at}attn1.", ("to_q", "to_k", "to_v"), "to_out.0"),
                **_feed_forward(found, f"{at}ff."),
            }
        }
    return params


def joint_params_of(found: Tensors, last: bool) -> dict[str, PyTree]:
    """The parameters of a `transformer.JointBlock` from the tensors of a JointTransformerBlock."""
    pixels = {
        "modulation": dense(found, "norm1.linear"),
        **_attention(found, "attn.", ("to_q", "to_k", "to_v"), "to_out.0"),
        **_feed_forward(found, "ff."),
    }
    text: dict[str, PyTree] = {"modulation": dense(found, "norm1_context.linear")}
    if last:  # theirs has queries, which nothing asks for, and its scale comes before its shift
        text["text_kv"] = dense(found, "attn.add_k_proj", "attn.add_v_proj")
        text["modulation"] = {
            name: np.roll(x, x.shape[-1] // 2, axis=-1) for name, x in text["modulation"].items()
        }
    else:
        qkv = ("add_q_proj", "add_k_proj", "add_v_proj")
        text |= _attention(found, "attn.", qkv, "to_add_out")
        text |= _feed_forward(found, "ff_context.")
    for stream, added in ((pixels, ""), (text, "added_")):
        for which in "qk":
            if f"attn.norm_{added}{which}.weight" in found:
                stream[f"{which}_norm"] = {"scale": found[f"attn.norm_{added}{which}.weight"]}
    return {"pixels": pixels, "text": text}


def dense(found: Tensors, *names: str) -> dict[str, np.ndarray]:
    """The parameters of a dense layer from those of one or several linear ones, side by side."""
    return {
        "kernel": np.concatenate([found[f"{name}.weight"].T for name in names], axis=1),
        "bias": np.concatenate([found[f"{name}.bias"] for name in names]),
    }


def _attention(found: Tensors, at: str, qkv: tuple[str, ...], out: str) -> dict[str, PyTree]:
    return {"qkv": dense(found, *(at + name for name in qkv)), "out": dense(found, at + out)}


def _feed_forward(found: Tensors, at: str) -> dict[str, PyTree]:
    return {"dense_0": dense(found, f"{at}net.0.proj"), "dense_1": dense(found, f"{at}net.2")}


def _of_the_first(name: str) -> str:
    block, found, rest = name.partition(f".{EMBEDDER}.")
    return f"transformer_blocks.0.{EMBEDDER}.{rest}" if found else block
