"""The trade between how good pictures look and how well they fit their captions, as a picture.

Each row of a sweep is a point: its CLIP score to the right, its distance from real pictures upwards
(Saharia et al. 2022, fig. 4). A line joins the rows that differ in the first axis of the sweep
alone. A filled point is one that no other row beats in both numbers.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from diffjax.core.json_types import Json
from diffjax.evaluation.plot import (
    BOTTOM_PX,
    COLOURS,
    GRID,
    HEIGHT_PX,
    INK,
    LEFT_PX,
    RIGHT_PX,
    TOP_PX,
    WIDTH_PX,
)
from diffjax.images import letters

FONT_PX, RADIUS_PX, TICKS = 14, 4, 5
ACROSS = "clip_score"
# The distances that may stand upwards, the preferred one first.
DISTANCES = (r"fid|fd_[a-z0-9]+", r"(fid|fd_[a-z0-9]+)_of_\d+", r"kid(_[a-z0-9]+)?")


class Point(NamedTuple):
    """A row of a sweep. label: the value of the first axis; line: those of the others."""

    x: float
    y: float
    label: str
    line: str


def of_sweep(sweep: Json) -> UInt8[np.ndarray, "h w 3"] | None:
    """The plot of a sweep; None if its rows have no CLIP score or no distance that all have."""
    rows = sweep.get("rows") if isinstance(sweep, dict) else None
    axes = sweep.get("axes") if isinstance(sweep, dict) else None
    if not isinstance(rows, list) or not isinstance(axes, list) or not rows:
        return None
    up = height_of(rows)
    points = points_of(rows, up)
    return draw(points, up, str(axes[0])) if up and points else None


def height_of(rows: Sequence[Json]) -> str:
    """The distance that all rows have: a Frechet distance, one of few pictures, or KID; or ""."""
    numbers = [_numbers(row) for row in rows]
    shared = [name for name in numbers[0] if all(name in one for one in numbers)]
    for pattern in DISTANCES:
        for name in shared:
            if re.fullmatch(pattern, name):
                return name
    return ""


def points_of(rows: Sequence[Json], up: str) -> list[Point]:
    """The points of the rows that have both numbers."""
    found = []
    for row in rows:
        numbers = _numbers(row)
        assert isinstance(row, dict)
        at = row["at"]
        assert isinstance(at, dict)
        x, y = numbers.get(ACROSS), numbers.get(up)
        if isinstance(x, float) and isinstance(y, float):
            (_, first), *others = at.items()
            line = ", ".join(f"{name} {value}" for name, value in others)
            found.append(Point(x, y, str(first), line))
    return found


def front(points: Sequence[Point]) -> list[bool]:
    """Whether no other point is at least as good in both numbers and better in one.

    A larger x and a smaller y are better.
    """
    beats = lambda a, b: a.x >= b.x and a.y <= b.y and (a.x > b.x or a.y < b.y)  # noqa: E731
    return [not any(beats(other, one) for other in points) for one in points]


def draw(points: Sequence[Point], up: str, first: str) -> UInt8[np.ndarray, "h w 3"]:
    """The points with axes. up: the name of the distance; first: of the axis that lines follow."""
    image = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), "white")
    pen, font = ImageDraw.Draw(image), letters.plain(FONT_PX)
    (left, right), (low, high) = _ends([p.x for p in points]), _ends([p.y for p in points])

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left) * (WIDTH_PX - LEFT_PX - RIGHT_PX)
        upward = (y - low) / (high - low) * (HEIGHT_PX - TOP_PX - BOTTOM_PX)
        return LEFT_PX + across, HEIGHT_PX - BOTTOM_PX - upward

    for share in np.linspace(0.0, 1.0, TICKS):
        x, y = left + share * (right - left), low + share * (high - low)
        pen.line([at(x, low), at(x, high)], fill=GRID)
        pen.line([at(left, y), at(right, y)], fill=GRID)
        pen.text((at(x, low)[0], at(x, low)[1] + 8), f"{x:.4g}", fill=INK, font=font, anchor="ma")
        pen.text((LEFT_PX - 8, at(left, y)[1]), f"{y:.3g}", fill=INK, font=font, anchor="rm")
    pen.line([at(left, high), at(left, low), at(right, low)], fill=INK)
    middle = (at((left + right) / 2, low)[0], HEIGHT_PX - 22)
    pen.text(middle, f"{ACROSS}: more is better", fill=INK, font=font, anchor="ma")
    pen.text((LEFT_PX, 6), f"{up}: less is better, by {first}", fill=INK, font=font)
    best, lines = front(points), list(dict.fromkeys(point.line for point in points))
    for i, line in enumerate(lines):
        colour = COLOURS[i % len(COLOURS)]
        pen.line([at(p.x, p.y) for p in points if p.line == line], fill=colour, width=2)
        name = (WIDTH_PX - RIGHT_PX, 6 + 18 * i)
        pen.text(name, line, fill=colour, font=font, anchor="ra")
    for point, good in zip(points, best, strict=True):
        colour = COLOURS[lines.index(point.line) % len(COLOURS)]
        x, y = at(point.x, point.y)
        box = (x - RADIUS_PX, y - RADIUS_PX, x + RADIUS_PX, y + RADIUS_PX)
        pen.ellipse(box, fill=colour if good else "white", outline=colour, width=2)
        pen.text((x + 7, y - 4), point.label, fill=INK, font=font, anchor="ls")
    return np.asarray(image)


def _numbers(row: Json) -> dict[str, Json]:
    numbers = row.get("numbers") if isinstance(row, dict) else None
    return numbers if isinstance(numbers, dict) else {}


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis: a little beyond the values, and never equal."""
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.05 * max(abs(low), 1e-3)
    return low - margin, high + margin
