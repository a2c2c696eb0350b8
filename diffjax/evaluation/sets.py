"""Compares a set of made pictures with a set of real ones, from their features and colours.

A number that the sets cannot have is left out with a reason, and no other stands in its place. A
Frechet distance wants more pictures than features on both sides. With fewer it depends mainly on
their number, so it is called by that number: `fd_lite0_of_64` is of 64 made and 64 real pictures,
and can be compared with other distances of that name alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from diffjax.core.errors import InputError
from diffjax.evaluation import fid
from diffjax.evaluation.metrics import drift, inception_score, kid, neighbours, statistics
from diffjax.evaluation.metrics.cmmd import cmmd
from diffjax.evaluation.metrics.drift import Colours
from diffjax.evaluation.metrics.features import Features, Others
from diffjax.evaluation.metrics.fid_infinity import SMALLEST, fid_infinity
from diffjax.evaluation.metrics.statistics import Statistics

# Neighbours whose distance is the radius of a ball, of precision and recall, and of coverage.
NEAREST, NEAREST_COVERED = 3, 5


@dataclass(frozen=True)
class Found:
    """Numbers by name, and the reason for each that is left out."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __or__(self, other: "Found") -> "Found":
        """Both together."""
        return Found({**self.numbers, **other.numbers}, {**self.left_out, **other.left_out})


@dataclass(frozen=True)
class Set:
    """What is kept of a set of pictures.

    features: None if there are only statistics, as a file has them; colours: likewise.
    """

    statistics: Statistics
    features: Features | None = None
    colours: Colours | None = None

    @property
    def count(self) -> int:
        """The number of pictures."""
        return self.statistics.count


def compare(
    made: Set,
    real: Set,
    label: str,
    *,
    classes: Float[np.ndarray, "d k"] | None = None,
    any_count: bool = False,
) -> Found:
    """All numbers of both sets that the extractor's features give.

    label: what the Frechet distance of these features is called, such as "fd_lite0". classes: the
    kernel that makes logits of features, for the Inception score. any_count: allows as many real
    pictures as there are; otherwise there must be as many as made ones.

    Raises:
      InputError: the sets had different extractors or resizes, or different counts that are not
        allowed, or a set is constant or has numbers that are not finite.
    """
    statistics.check_alike(made.statistics, real.statistics, any_count=any_count)
    found = frechet(made, real, label)
    if made.features is not None and classes is not None:
        found |= inception(made.features, classes)
    if made.features is None or real.features is None:
        why = "the real pictures are known by their statistics alone: --against a source has it"
        names = (f"kid{suffix(label)}", "precision", "recall", "density", "coverage")
        found |= Found(left_out=dict.fromkeys(names, why))
    else:
        found |= near(made.features, real.features, label)
    if made.colours is not None and real.colours is not None:
        found |= Found(drift.drift(made.colours, real.colours))
    return found


def suffix(label: str) -> str:
    """What tells an extractor's numbers from Inception's: "_lite0" of "fd_lite0", "" of "fid"."""
    return label.removeprefix("fd") if label != "fid" else ""


def frechet(made: Set, real: Set, label: str) -> Found:
    """`LABEL` if both sets have more pictures than features; else `LABEL_of_COUNT`.

    Of more than 5,000 made pictures also `LABEL_infinity`, the limit for infinitely many.

    Raises:
      InputError: what `fid.distance` refuses.
    """
    a, b = made.statistics.moments, real.statistics.moments
    few = [one.count for one in (a, b) if one.count <= one.width]
    if not few:
        numbers = {label: fid.distance(a, b)}
        if made.features is not None and made.count > SMALLEST:
            numbers[f"{label}_infinity"] = fid_infinity(made.features, b).value
        return Found(numbers)
    least = a.width + 1
    why = f"{min(few)} pictures for {a.width} features: it wants at least {least}, --num {least}"
    if a.count != b.count:
        return Found(left_out={label: why})
    if made.features is not None and real.features is not None:
        value = fid.distance_of_few(made.features, real.features)
    else:
        value = fid.distance(a, b, full_rank=False)
    return Found({f"{label}_of_{a.count}": value}, {label: why})


def near(made: Features, real: Others, label: str) -> Found:
    """KID, precision and recall, density and coverage; of a CLIP's features CMMD too.

    The subsets of KID have as many pictures as torch-fidelity's, or all if there are fewer.

    Raises:
      InputError: a set is constant, or a number is not finite.
    """
    least = min(len(made), len(real))
    size = min(kid.SUBSET_SIZE, least)
    subsets = kid.SUBSETS if size < max(len(made), len(real)) else 1
    spread = kid.kid(made, real, subsets=subsets, subset_size=size)
    name = f"kid{suffix(label)}"
    numbers = {name: spread.mean}
    if subsets > 1:
        numbers[f"{name}_deviation"] = spread.deviation
    if label == "fd_clip":
        numbers["cmmd"] = cmmd(made, real)
    left_out: dict[str, str] = {}
    if least > NEAREST:
        balls = neighbours.precision_recall(made, real, NEAREST)
        numbers |= {"precision": balls.precision, "recall": balls.recall}
    else:
        left_out |= dict.fromkeys(("precision", "recall"), _too_few(least, NEAREST))
    if least > NEAREST_COVERED:
        covered = neighbours.density_coverage(made, real, NEAREST_COVERED)
        numbers |= {"density": covered.density, "coverage": covered.coverage}
    else:
        left_out |= dict.fromkeys(("density", "coverage"), _too_few(least, NEAREST_COVERED))
    return Found(numbers, left_out)


def inception(made: Features, classes: Float[np.ndarray, "d k"]) -> Found:
    """`inception_score` with its deviation over ten parts of the set."""
    logits = made.astype(np.float64) @ classes
    try:
        score = inception_score.inception_score(logits)
    except InputError as error:
        return Found(left_out={"inception_score": str(error)})
    return Found({"inception_score": score.mean, "inception_score_deviation": score.deviation})


def spread_of(rows: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """(mean, standard deviation) of each number over the rows, which must all have it.

    The deviation is that of a sample, with n - 1; there is none of a single row.
    """
    names = [name for name in rows[0] if all(name in row for row in rows)]
    table = np.array([[row[name] for name in names] for row in rows], np.float64)
    means = dict(zip(names, table.mean(axis=0).tolist(), strict=True))
    if len(rows) < 2:
        return means, {}
    return means, dict(zip(names, table.std(axis=0, ddof=1).tolist(), strict=True))


def _too_few(count: int, nearest: int) -> str:
    return f"{count} pictures: it looks at the {nearest} nearest others, so it wants more"
