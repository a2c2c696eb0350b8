"""The sizes of a CLIP, and those of the paper's networks (Radford et al. 2021, table 20)."""

from dataclasses import dataclass
from typing import Literal

from diffjax.models.layers.embedding import Steps

Activation = Literal["quick_gelu", "gelu"]
ACTIVATIONS: tuple[Activation, ...] = ("quick_gelu", "gelu")
# The mean and standard deviation of the pixels in [0, 1] that the paper's networks were trained on.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Tower:
    """The sizes of a transformer. hidden: the width inside its feed-forwards."""

    width: int
    layers: int
    heads: int
    hidden: int


def tower(width: int, layers: int, heads: int = 0) -> Tower:
    """A tower of the paper: heads of 64 unless told otherwise, feed-forwards of four widths."""
    return Tower(width, layers, heads or max(width // 64, 1), 4 * width)


@dataclass(frozen=True)
class Told:
    """A frozen text encoder, by its name in `text.encoder`, and the width of its states."""

    encoder: str
    width: int


@dataclass(frozen=True)
class CLIPConfig:
    """The sizes of both towers, and what pictures and texts they take.

    size_px: the side of the pictures. patch: the side of a patch. vocabulary: the number of token
    ids, of which the highest ends a text. length: the most tokens of a text. embed: the width of
    the features. mean, std: of pixels in [0, 1]; the image tower subtracts and divides by them.
    noised: the image tower is told the log SNR of its pictures, as one more token (Nichol et al.
    2022, sec. 2.4). backbone: the frozen network below a head, such as "lite0" (`backbone.py`); the
    head has the width image.width, and image.layers is 0. Patches and `mean`, `std` are not used.
    told: in the same way the text encoder below a head of the width text.width; vocabulary is 0.
    levels: of a noised CLIP as GLIDE's, whose class token is one of so many, by the step of a
    chain; step: turns the log SNR into that step. 0: the level is a token of its own.
    """

    image: Tower
    text: Tower
    size_px: int
    patch: int
    embed: int
    vocabulary: int = 49_408
    length: int = 77
    activation: Activation = "quick_gelu"
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    noised: bool = False
    backbone: str = ""
    told: Told | None = None
    levels: int = 0
    step: Steps | None = None

    @property
    def patches(self) -> int:
        """The number of patches of a picture."""
        return (self.size_px // self.patch) ** 2


SIZES = {
    "B/32": CLIPConfig(tower(768, 12), tower(512, 12), 224, 32, 512),
    "B/16": CLIPConfig(tower(768, 12), tower(512, 12), 224, 16, 512),
    "L/14": CLIPConfig(tower(1024, 24), tower(768, 12), 224, 14, 768),
    "L/14@336": CLIPConfig(tower(1024, 24), tower(768, 12), 336, 14, 768),
}
