"""Random weights and pictures for networks of others, of integers, equal on every machine."""

import math

import numpy as np


def weights(seed: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The tensors of a convolutional network of PyTorch by name.

    Values keep their size from layer to layer.
    """
    draw, made = np.random.default_rng(seed), {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith("num_batches_tracked"):
            made[name] = np.zeros(shape, np.int64)
            continue
        drawn = draw.integers(-1000, 1001, shape) / 577.0  # variance 1
        if len(shape) > 1:
            drawn = drawn * math.sqrt(2.0 / math.prod(shape[1:]))
        elif name.endswith("running_var") or name.endswith("weight"):
            drawn = 1.0 + 0.2 * drawn
        else:
            drawn = 0.2 * drawn
        made[name] = np.asarray(drawn, np.float32)
    return made


def pictures(seed: int) -> np.ndarray:
    """Two pictures [b h w c] in [-1, 1] at 224 px, which the static padding of PyTorch's wants."""
    draw = np.random.default_rng(seed + 1)
    return (draw.integers(-128, 129, (2, 224, 224, 3)) / 128).astype(np.float32)


def transformer(seed: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The tensors of a transformer of PyTorch by name, so that each of them changes the result."""
    draw, made = np.random.default_rng(seed), {}
    for name in sorted(shapes):
        drawn = draw.integers(-1000, 1001, shapes[name]) / 577.0
        if name.endswith("weight") and drawn.ndim > 1:
            drawn = drawn * math.prod(drawn.shape[1:]) ** -0.5
        elif name.endswith(("weight", "lambda1")):
            drawn = 1.0 + 0.2 * drawn
        elif name.endswith("bias"):
            drawn = 0.2 * drawn
        made[name] = np.asarray(drawn, np.float32)
    return made


def blocks(seed: int, count: int, height: int, width: int) -> np.ndarray:
    """Pictures [b h w 3] in bytes, each with colours of its own."""
    draw = np.random.default_rng(seed + 2)
    colours = draw.integers(0, 256, (count, 1, 1, 3))
    return ((draw.integers(0, 256, (count, height, width, 3)) + colours) // 2).astype(np.uint8)
