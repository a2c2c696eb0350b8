"""A random network that PyTorch, NumPy and JAX evaluate alike, to compare samplers on."""

from typing import Any

import numpy as np

CHANNELS, HIDDEN = 3, 12


def draw(seed: int) -> dict[str, np.ndarray]:
    """Weights of a perceptron on the channels of a pixel and the noise level, float32."""
    generator = np.random.default_rng(seed)
    sizes = {
        "from_x": (CHANNELS, HIDDEN),
        "from_level": (HIDDEN,),
        "bias": (HIDDEN,),
        "to_v": (HIDDEN, CHANNELS),
        "to_fraction": (HIDDEN, CHANNELS),
    }
    draws = {name: generator.standard_normal(size) for name, size in sizes.items()}
    draws["to_v"] /= HIDDEN**0.5
    draws["to_fraction"] /= HIDDEN**0.5
    return {name: value.astype(np.float32) for name, value in draws.items()}


def hidden(xp: Any, weights: Any, x: Any, logsnr: Any) -> Any:
    """tanh(x from_x + tanh(logsnr / 4) from_level + bias), of x [b h w c] and logsnr [b]."""
    level = xp.tanh(logsnr / 4).reshape(-1, 1, 1, 1)
    return xp.tanh(x @ weights["from_x"] + level * weights["from_level"] + weights["bias"])


def predict(xp: Any, weights: Any, x: Any, logsnr: Any, kind: str) -> Any:
    """The network's "v", or "eps" = sigma x + alpha v computed from the same v.

    eps is computed from v, because the x_0_hat of a random eps would be far larger than an image.
    """
    v = hidden(xp, weights, x, logsnr) @ weights["to_v"]
    if kind == "v":
        return v
    alpha, sigma = (((1 + xp.exp(sign * logsnr)) ** -0.5).reshape(-1, 1, 1, 1) for sign in (-1, 1))
    return sigma * x + alpha * v


def fraction(xp: Any, weights: Any, x: Any, logsnr: Any) -> Any:
    """The variance channels of improved DDPM, in [-1, 1]."""
    return xp.tanh(hidden(xp, weights, x, logsnr) @ weights["to_fraction"])
