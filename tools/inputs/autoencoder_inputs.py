"""Parameters and pictures from formulas, for comparing autoencoders without files of weights."""

import math
from pathlib import Path

import numpy as np

FILE = Path(__file__).parents[2] / "tests/tasks/golden/autoencoding.json"
WIDTHS = (8, 16)  # channels of the two levels
LATENT, CODES, SIDE, ROWS = 2, 5, 16, 3
KL, ADVERSARY, JUDGE_WIDTH = 1e-3, 0.5, 8


def wave(name: str, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """Numbers between -scale and scale that depend on the name and the place alone."""
    phase = sum(ord(letter) * (i + 1) for i, letter in enumerate(name)) % 1009
    at = np.arange(math.prod(shape), dtype=np.float64)
    return (scale * np.sin(0.37 * phase + 1.7 * at + 0.13 * at * np.cos(at))).reshape(shape)


def parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of a parameter, in diffjax's names and layout."""
    last = name.rpartition("/")[2]
    if last == "scale":
        return 1.0 + wave(name, shape, 0.1)
    if last in ("bias", "log_variance"):
        return wave(name, shape, 0.1)
    return wave(name, shape, 1.5 / math.sqrt(math.prod(shape[:-1])))


def picture() -> np.ndarray:
    """Bytes [b h w 3]."""
    return np.round(127.5 + wave("picture", (ROWS, SIDE, SIDE, 3), 127.0)).astype(np.uint8)


def latent_eps() -> np.ndarray:
    """The noise of the latents [b h w z]."""
    return wave("eps", (ROWS, SIDE // 2, SIDE // 2, LATENT), 1.4)
