"""What the small GLIDEs of the tests are given, and their sizes, without PyTorch."""

from dataclasses import dataclass

import numpy as np

from tools.inputs import ancestors_inputs
from tools.inputs.ancestors_inputs import Net

# Of the text transformer: ids, places, width, layers and heads.
VOCABULARY, PLACES, WIDTH, LAYERS, HEADS = 11, 6, 24, 2, 3
# Base and upsampler, and those that fill holes, by the channels of their inputs.
NETS = {
    "base": Net(classes=0),
    "upsampler": Net(classes=0, inputs=6),
    "inpaint": Net(classes=0, inputs=7),
    "upsampler_inpaint": Net(classes=0, inputs=10),
}


@dataclass(frozen=True)
class NoisedCLIP:
    """A small CLIP of noised pictures in the layout of GLIDE's files; heads are 64 wide."""

    image_width: int = 128
    text_width: int = 64
    layers: int = 2
    side: int = 8
    patch: int = 4
    steps: int = 1000
    vocabulary: int = 13
    length: int = 7
    embed: int = 10


CLIP = NoisedCLIP()


def texts() -> dict[str, np.ndarray]:
    """Ids [b l] of texts, of which the highest ends one, and how many ids each has."""
    return {
        "ids": np.array([[11, 3, 5, 12, 0, 0, 0], [11, 12, 0, 0, 0, 0, 0]]),
        "lengths": np.array([4, 2]),
    }


def given() -> dict[str, np.ndarray]:
    """As `ancestors_inputs.given`, with tokens [b l], of which -1 is none, a picture and a hole."""
    draw, known = np.random.default_rng(5), ancestors_inputs.given()
    side = ancestors_inputs.SIDE
    picture = np.asarray(draw.integers(-1000, 1001, (2, side, side, 3)) / 1009, np.float32)
    hole = np.zeros((2, side, side, 1), bool)
    hole[0, 2:5, 1:], hole[1, :, 6:] = True, True
    tokens = np.array([[3, 10, 0, 7, -1, -1], [-1] * 6])
    return {"x": known["x"], "small": known["small"], "step": known["step"], "tokens": tokens,
            "picture": picture, "hole": hole}  # fmt: skip
