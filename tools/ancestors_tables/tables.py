"""The five tables: what each compares, as Markdown and as a plot."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from diffjax import evaluate
from tools.ancestors_tables import judge, plots, runs, sets
from tools.ancestors_tables.judge import Scores
from tools.ancestors_tables.sets import Way

COUNT, GUIDED_COUNT = 500, 1_000  # digits of a set
STEPS = (10, 25, 50, 100, 250, 1000)
# Sets of fewer steps are cheap, so there are several, whose numbers have a spread.
SEEDS = {10: 3, 25: 3, 50: 3, 100: 3, 250: 3}
WEIGHTS = (1.25, 1.5, 2.0, 3.0, 5.0)
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
GUIDED_STEPS = 25
EXAMPLES = 64  # of the bound, which asks the network 1,000 times for each

# Ways of sampling one network, that several tables share; `by_steps` says how many steps.
LEARNED = Way("cosine_hybrid", 0)
SMALL, LARGE = LEARNED._replace(sampler="ddpm"), LEARNED._replace(sampler="ddpm", noise=1.0)
DDIM = LEARNED._replace(sampler="ddim", spacing="leading")


def cosine(out: Path) -> str:
    """Improved DDPM's cosine schedule against linear betas, by steps."""
    ways = {"cosine": LEARNED, "linear betas": LEARNED._replace(run="linear_hybrid")}
    return by_steps(out, "cosine", ways)


def variance(out: Path) -> str:
    """The learned variance against the fixed ones, of one network, by steps."""
    ways = {"learned": LEARNED, "fixed, small": SMALL, "fixed, large": LARGE}
    return by_steps(out, "variance", ways)


def steps(out: Path) -> str:
    """DDIM against DDPM, of one network, by steps."""
    ways = {"DDIM": DDIM, "DDPM, small": SMALL, "DDPM, large": LARGE, "DDPM, learned": LEARNED}
    return by_steps(out, "steps", ways)


def by_steps(out: Path, name: str, ways: Mapping[str, Way], counts: Sequence[int] = STEPS) -> str:
    """A table of Frechet distances by steps, with the share of right digits; and its plot."""
    rows = {
        label: [sets.scores(out, way._replace(steps=n), COUNT, SEEDS.get(n, 1)) for n in STEPS]
        for label, way in ways.items()
    }
    floor = judge.of_real(judge.trained(out), COUNT)
    distances = {
        label: [[one.fd for one in several] for several in found] for label, found in rows.items()
    }
    plots.lines(
        out / f"{name}.png",
        {
            label: (STEPS, [float(np.mean(some)) for some in found])
            for label, found in distances.items()
        },
        across="steps",
        up=f"FD of {COUNT} digits",
        floor=floor.fd,
    )
    head = ["FD of " + str(COUNT) + " digits", *(f"{n:,} steps" for n in STEPS), "right, by most"]
    body = [
        [label, *map(spread, found), percent(np.mean([one.right for one in rows[label][-1]]))]
        for label, found in distances.items()
    ]
    last = [f"{COUNT} real digits", *[f"{floor.fd:.2f}"] * len(STEPS), percent(floor.right)]
    return markdown([head, *body, last])


def bits(out: Path) -> str:
    """Objectives and schedules in bits per dimension, as chains of 1,000 steps."""
    rows = [row for name in runs.RUNS if "_" in name for row in bound(out, name)]
    plots.bounds(out / "bits.png", rows)
    head = ["objective", "schedule", "variance", "prior", "diffusion", "decoder", "bits/dim"]
    parts = ("prior", "diffusion", "decoder", "bits_per_dim")
    names = {"simple": "L_simple", "hybrid": "L_hybrid", "vlb": "L_vlb, importance"}
    schedules = {"linear": "linear betas", "discrete_cosine": "cosine"}
    body = [
        [
            names[row["objective"]],
            schedules[row["schedule"]],
            row["variance"],
            *(f"{row[part]:.3f}" for part in parts),
        ]
        for row in rows
    ]
    return markdown([head, *body])


def bound(out: Path, name: str) -> list[dict]:
    """The rows of `diffjax.evaluate --parts bits` of a run; kept in a file."""
    workdir, path = runs.trained(out, name), out / f"bits_{name}.json"
    if not path.exists():
        asked = ["--parts", "bits", "--split", "train", "--num", str(EXAMPLES)]
        flags = evaluate.parser().parse_args([str(workdir), *asked, "--out", str(path)])
        evaluate.run(flags)
    return json.loads(path.read_text())["bits"]


def guidance(out: Path) -> str:
    """Guidance by a classifier against classifier-free guidance, at equal network calls.

    Each asks networks twice a step: the U-Net twice, or the U-Net and the classifier. Without
    guidance there are twice as many steps instead.
    """
    n = GUIDED_STEPS
    ways = {
        "none": [(1.0, Way("adm", 2 * n))],
        "classifier-free": [(w, Way("adm", n, weight=w)) for w in WEIGHTS],
        "classifier": [(s, Way("adm", n, scale=s)) for s in SCALES],
    }
    rows = {
        label: [(amount, sets.scores(out, way, GUIDED_COUNT, 1)[0]) for amount, way in some]
        for label, some in ways.items()
    }
    floor = judge.of_real(judge.trained(out), GUIDED_COUNT)
    plots.tradeoff(out / "guidance.png", rows, floor)
    head = ["guidance", "weight or scale", "right", "precision", "recall", "FD"]
    body = [
        [label, f"{amount:g}" if label != "none" else "", *cells(one)]
        for label, some in rows.items()
        for amount, one in some
    ]
    return markdown([head, *body, [f"{GUIDED_COUNT:,} real digits", "", *cells(floor)]])


TABLES: dict[str, Callable[[Path], str]] = {
    "cosine": cosine, "variance": variance, "bits": bits, "guidance": guidance, "steps": steps,
}  # fmt: skip


def cells(one: Scores) -> list[str]:
    """The numbers of a set as cells of a table."""
    return [percent(one.right), f"{one.precision:.3f}", f"{one.recall:.3f}", f"{one.fd:.2f}"]


def spread(values: Sequence[float]) -> str:
    """The mean, with the standard deviation of several sets."""
    mean = f"{np.mean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.2f}"


def percent(share: float | np.floating) -> str:
    """A share as people write it."""
    return f"{100 * share:.1f} %"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, of which the first row is the head."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body]) + "\n"
