"""Draws the loss by noise level, with a line for each stage, using Pillow."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from diffjax.core.json_types import Json

# A line: its points (logsnr, loss), from noise to clean.
Curve = list[tuple[float, float]]
BIN = re.compile(r"loss_logsnr_(-?[\d.]+)_(-?[\d.]+)")
WIDTH_PX, HEIGHT_PX, FONT_PX = 720, 440, 14
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 70, 20, 44, 56
INK, GRID = (40, 40, 40), (225, 225, 225)
COLOURS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189))


def curves_of(stages: Json) -> dict[str, Curve]:
    """The line of each stage of a report that has one, at the middles of the bins."""
    found: dict[str, Curve] = {}
    for stage in stages if isinstance(stages, list) else []:
        assert isinstance(stage, dict)
        numbers = stage["numbers"]
        assert isinstance(numbers, dict)
        curve = []
        for name, value in numbers.items():
            if (ends := BIN.fullmatch(name)) and isinstance(value, float) and np.isfinite(value):
                curve.append(((float(ends[1]) + float(ends[2])) / 2, value))
        if curve:
            found[str(stage["name"])] = sorted(curve)
    return found


def draw(curves: Mapping[str, Curve]) -> UInt8[np.ndarray, "h w 3"]:
    """Draws the lines with axes, and a name for each line."""
    image = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=FONT_PX)
    points = [point for curve in curves.values() for point in curve]
    low, high = min(x for x, _ in points) - 2, max(x for x, _ in points) + 2
    top = nice(max(y for _, y in points))

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - low) / (high - low) * (WIDTH_PX - LEFT_PX - RIGHT_PX)
        up = y / top * (HEIGHT_PX - TOP_PX - BOTTOM_PX)
        return LEFT_PX + across, HEIGHT_PX - BOTTOM_PX - up

    for y in np.linspace(0.0, top, 6):
        pen.line([at(low, y), at(high, y)], fill=GRID)
        pen.text((LEFT_PX - 8, at(low, y)[1]), f"{y:.3g}", fill=INK, font=font, anchor="rm")
    for x in sorted({x for x, _ in points}):
        pen.line([at(x, 0.0), at(x, top)], fill=GRID)
        pen.text((at(x, 0.0)[0], at(x, 0.0)[1] + 8), f"{x:g}", fill=INK, font=font, anchor="ma")
    pen.line([at(low, top), at(low, 0.0), at(high, 0.0)], fill=INK)
    below = (at((low + high) / 2, 0.0)[0], HEIGHT_PX - 22)
    pen.text(below, "log SNR, from noise to clean", fill=INK, font=font, anchor="ma")
    pen.text((LEFT_PX, 6), "|v - v_hat|² per dimension", fill=INK, font=font)
    for i, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        line = [at(x, y) for x, y in curve]
        pen.line(line, fill=colour, width=2)
        for x, y in line:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        pen.text((WIDTH_PX - RIGHT_PX, 6 + 18 * i), name, fill=colour, font=font, anchor="ra")
    return np.asarray(image)


def nice(value: float) -> float:
    """The least 1, 2 or 5 times a power of ten that is not below `number`; 1 for number <= 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    steps: Sequence[float] = (1.0, 2.0, 5.0, 10.0)
    return float(next(step * power for step in steps if step * power >= value * (1 - 1e-9)))
