"""The plots of the tables, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib import pyplot

from tools.ancestors_tables.judge import Scores

matplotlib.use("agg")
DPI = 100


def lines(
    path: Path,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    across: str,
    up: str,
    floor: float,
) -> None:
    """A line for each curve (x, y), on logarithmic axes. floor: that of real digits."""
    figure, axis = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    for i, (name, (x, y)) in enumerate(curves.items()):
        axis.loglog(x, y, f"C{i}o-", markersize=5, label=name)
        axis.set_xticks(x, [f"{one:g}" for one in x], minor=False)
    axis.axhline(floor, color="gray", linestyle="--", label="real digits")
    axis.xaxis.minorticks_off()
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.set(xlabel=across, ylabel=up)
    finish(figure, [axis], path)


def tradeoff(path: Path, rows: Mapping[str, Sequence[tuple[float, Scores]]], floor: Scores) -> None:
    """Precision, and the share of right digits, over recall; a point for each amount.

    Lines begin at the point without guidance, which is the first row.
    """
    (_, start), *others = rows.items()
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axis, name in zip(axes, ("precision", "right"), strict=True):
        for i, (label, more) in enumerate(others):
            some = [*start, *more]
            x, y = [one.recall for _, one in some], [getattr(one, name) for _, one in some]
            axis.plot(x, y, f"C{i}o-", markersize=5, label=label)
            for amount, at, height in zip((a for a, _ in some), x, y, strict=True):
                if (at, height) != (x[0], y[0]):
                    axis.annotate(f"{amount:g}", (at, height), (4, 4), fontsize=8,
                                  textcoords="offset points")  # fmt: skip
        (_, plain), *_ = start
        axis.plot(plain.recall, getattr(plain, name), "ks", markersize=6, label="no guidance")
        axis.plot(floor.recall, getattr(floor, name), "k*", markersize=10, label="real digits")
    axes[0].set(xlabel="recall", ylabel="precision")
    axes[1].set(xlabel="recall", ylabel="share that the judge names right")
    finish(figure, axes, path)


def bounds(path: Path, rows: Sequence[Mapping]) -> None:
    """The bits per dimension of each row as a bar, and the terms of the chain by time."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    names = [
        f"{row['objective']}, {row['schedule'].removeprefix('discrete_')}, {row['variance']}"
        for row in rows
    ]
    totals = [row["bits_per_dim"] for row in rows]
    colours = [f"C{i}" for i in range(len(rows))]
    bars = left.barh(names, totals, color=colours)
    left.bar_label(bars, fmt="%.2f", padding=3)
    left.invert_yaxis()
    left.set(xlabel="bits per dimension", xlim=(0, 1.15 * max(totals)))
    for row, name, colour in zip(rows, names, colours, strict=True):
        terms = row["terms"]
        times = [100 * (1 - (i + 0.5) / len(terms)) for i in range(len(terms))]
        right.semilogy(times, terms, color=colour, label=name)
    right.set(xlabel="time, in percent of the chain: noise is at 100",
              ylabel="bits per dimension of a twentieth of the steps")  # fmt: skip
    left.grid(alpha=0.3, axis="x")
    finish(figure, [right], path)


def finish(figure, axes, path: Path) -> None:
    """Writes the figure, with a grid and a legend in each of these axes."""
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)
