"""Captioned coloured shapes made in memory, in a real source's format, for tests and dry runs."""

import numpy as np
from PIL import Image, ImageDraw

from diffjax.data import transforms
from diffjax.data.record import Record

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 200, 40),
    "purple": (140, 60, 180),
    "black": (20, 20, 20),
}
# Corners of the regular polygons; a circle has none.
SHAPES = {"circle": 0, "triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6}
_SUPERSAMPLING = 4


class Shapes:
    """`count` pictures of one shape each on white, a pure function of (seed, index)."""

    def __init__(self, count: int, size_px: int = 64, seed: int = 0):
        if count < 1 or size_px < 1:
            raise ValueError(f"count={count} and size_px={size_px} must be at least 1")
        self._count, self._size_px, self._seed = count, size_px, seed

    def __len__(self) -> int:
        """How many records there are."""
        return self._count

    def __getitem__(self, index: int) -> Record:
        """Kinds take turns, so that few records hold all; place and size vary by chance."""
        shape, colour = self._kind(index)
        image = _draw(shape, colour, self._size_px, np.random.default_rng((self._seed, index)))
        return dict(
            image=transforms.encode_png(image),
            captions=self.captions(index),
            name=f"{colour}_{shape}",
            label=list(SHAPES).index(shape),
            colour=tuple(value / 255.0 for value in COLOURS[colour]),
        )

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of the record at `index`, without drawing it."""
        shape, colour = self._kind(index)
        thing = f"a {colour} {shape}"
        return f"{thing} on white", f"a drawing of {thing}"

    def fingerprint(self) -> str:
        """What the records are a function of."""
        return repr(self)

    def __repr__(self) -> str:
        """As messages name it."""
        return f"Shapes(count={self._count}, size_px={self._size_px}, seed={self._seed})"

    def _kind(self, index: int) -> tuple[str, str]:
        if not 0 <= index < self._count:
            raise IndexError(f"index {index} of {self._count} records")
        shape = list(SHAPES)[index % len(SHAPES)]
        return shape, list(COLOURS)[index // len(SHAPES) % len(COLOURS)]


def _draw(shape: str, colour: str, size_px: int, rng: np.random.Generator) -> np.ndarray:
    """Drawn larger and shrunk, so that edges are smooth."""
    canvas_px = size_px * _SUPERSAMPLING
    radius = canvas_px * rng.uniform(0.2, 0.4)
    x, y = rng.uniform(radius, canvas_px - radius, size=2)
    canvas = Image.new("RGB", (canvas_px, canvas_px), "white")
    circle = (float(x), float(y), float(radius))
    if corners := SHAPES[shape]:
        upright = 45 if corners == 4 else 0
        ImageDraw.Draw(canvas).regular_polygon(circle, corners, upright, fill=COLOURS[colour])
    else:
        ImageDraw.Draw(canvas).circle(circle[:2], circle[2], fill=COLOURS[colour])
    return np.array(canvas.resize((size_px, size_px), Image.Resampling.BOX))
