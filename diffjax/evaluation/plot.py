"""The loss by noise level as a picture, on a logarithmic axis: a line for each stage (Pillow)."""

import math
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
            ends = BIN.fullmatch(name)
            if ends and isinstance(value, float) and np.isfinite(value) and value > 0:
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
    bottom, top = decades([y for _, y in points])

    def at(x: float, decade: float) -> tuple[float, float]:
        across = (x - low) / (high - low) * (WIDTH_PX - LEFT_PX - RIGHT_PX)
        up = (decade - bottom) / (top - bottom) * (HEIGHT_PX - TOP_PX - BOTTOM_PX)
        return LEFT_PX + across, HEIGHT_PX - BOTTOM_PX - up

    for decade in range(bottom, top + 1):
        y = at(low, decade)[1]
        pen.line([at(low, decade), at(high, decade)], fill=GRID)
        pen.text((LEFT_PX - 8, y), f"{10.0**decade:g}", fill=INK, font=font, anchor="rm")
    for x in sorted({x for x, _ in points}):
        across, y = at(x, bottom)
        pen.line([(across, y), at(x, top)], fill=GRID)
        pen.text((across, y + 8), f"{x:g}", fill=INK, font=font, anchor="ma")
    pen.line([at(low, top), at(low, bottom), at(high, bottom)], fill=INK)
    below = (at((low + high) / 2, bottom)[0], HEIGHT_PX - 22)
    pen.text(below, "log SNR, from noise to clean", fill=INK, font=font, anchor="ma")
    pen.text((LEFT_PX, 6), "|v - v_hat|^2 per dimension", fill=INK, font=font)
    for i, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        line = [at(x, math.log10(y)) for x, y in curve]
        pen.line(line, fill=colour, width=2)
        for x, y in line:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        pen.text((WIDTH_PX - RIGHT_PX, 6 + 18 * i), name, fill=colour, font=font, anchor="ra")
    return np.asarray(image)


def decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten between which numbers above 0 lie; at least one decade."""
    bottom = math.floor(math.log10(min(values)))
    return bottom, max(math.ceil(math.log10(max(values))), bottom + 1)
