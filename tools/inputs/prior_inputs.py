"""What a small prior in Karlo's layout is given, and its config. Needs only NumPy."""

from typing import Any

import numpy as np

from tools.inputs import random_tensors

Tensors = dict[str, np.ndarray]
# A small network in the layout of Karlo's prior.
SMALL: dict[str, Any] = dict(
    num_attention_heads=2, attention_head_dim=16, num_layers=2, embedding_dim=24, num_embeddings=7
)


def tensors(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Tensors:
    """Random tensors for these names; standard deviations are positive."""
    made = random_tensors.transformer(seed, {name: tuple(x) for name, x in shapes.items()})
    return {**made, "clip_std": np.abs(made["clip_std"]) + 0.5}


def given() -> Tensors:
    """Two noised vectors at their steps, and texts of 7 and 3 tokens."""
    draw = np.random.default_rng(3)
    width, length = SMALL["embedding_dim"], SMALL["num_embeddings"]
    shapes = {"x_t": (2, width), "text": (2, length, width), "text_vector": (2, width)}
    made: Tensors = {
        name: (draw.integers(-256, 257, shape) / 128).astype(np.float32)
        for name, shape in shapes.items()
    }
    return {
        **made,
        "step": np.array([3, 871]),
        "text_mask": np.arange(length) < np.array([[7], [3]]),
    }
