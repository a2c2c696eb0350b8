"""What the small Stable Diffusions of the tests are given, without PyTorch."""

import json
from pathlib import Path

import numpy as np

from diffjax.encoders.clip import bpe, vocabulary

LENGTH = 77
PROMPT, NEGATIVE = "an openmoji drawing of a red apple", "blurry"
STEPS, GUIDANCE = 20, 7.5
# Of the random weights of each part; 0 for others.
SEEDS = {"text_encoder": 1}


def noise() -> np.ndarray:
    """The x_T [b h w c] of a picture, of integers; variance 1."""
    drawn = np.random.default_rng(5).integers(-1000, 1001, (1, 8, 8, 4)) / 577
    return np.asarray(drawn, np.float32)


def of_unet(width: int, side: int = 8, length: int = 5) -> dict[str, np.ndarray]:
    """A latent [b h w c], steps [b] and a text [b l d], of integers."""
    draw = np.random.default_rng(2)

    def whole(*shape: int) -> np.ndarray:
        return np.asarray(draw.integers(-1000, 1001, shape) / 577, np.float32)

    return {
        "x": whole(2, side, side, 4),
        "step": np.array([981, 20]),
        "text": whole(2, length, width),
    }


def write_vocabulary(folder: Path) -> tuple[Path, Path]:
    """Writes vocab.json and merges.txt with the merges of the emoji captions; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    known = vocabulary.load(vocabulary.EMOJI)
    theirs = {bpe.START: "<|startoftext|>", bpe.END: "<|endoftext|>"}
    units = {theirs.get(unit, unit): number for unit, number in known.units.items()}
    lines = "\n".join(" ".join(merge) for merge in known.ranks)
    files = folder / "vocab.json", folder / "merges.txt"
    files[0].write_text(json.dumps(units, ensure_ascii=False))
    files[1].write_text(f"#version: 0.2\n{lines}\n")
    return files
