"""Random weights and pictures for EfficientNet-lite0, of integers, equal on every machine."""

import math

import numpy as np


def weights(seed: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """PyTorch's tensors by name; values keep their size from layer to layer."""
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
