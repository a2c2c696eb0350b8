"""Zero-shot classification, and retrieval of texts by pictures and of pictures by texts.

Everything is counted from unit vectors, whoever made them. Equal texts are one: a picture that
finds another picture's text that reads like its own has found its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from diffjax.core.json_types import JsonObject
from diffjax.evaluation.examples import Examples
from diffjax.evaluation.measure import Scores
from diffjax.evaluation.retrieval import interval

FIRST = (1, 5, 10)  # of how many it is told how often the right one is among them

Features = Float[np.ndarray, "n e"]
Others = Float[np.ndarray, "m e"]  # as many as there are classes, or texts


def places(
    scores: Float[np.ndarray, "n m"], right: Sequence[str], of: Sequence[str]
) -> Float[np.ndarray, " n"]:
    """For each row, how many columns of other names score higher than the best right one.

    right: the name that each row looks for. of: the name of each column. Columns that score exactly
    as the right one count half, so that features that tell nothing find what chance would.

    Raises:
      ValueError: no column has a name that a row looks for, or a score is not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("features with NaN or infinity cannot be compared")
    kinds, found = np.asarray(of), np.empty(len(scores))
    for row, (name, values) in enumerate(zip(right, scores, strict=True)):
        mine = kinds == name
        if not mine.any():
            raise ValueError(f"{name!r} is looked for, and is not among the {len(of)} answers")
        best, others = values[mine].max(), values[~mine]
        found[row] = np.sum(others > best) + 0.5 * np.sum(others == best)
    return found


def within(found: Float[np.ndarray, " n"], first: int) -> Bool[np.ndarray, " n"]:
    """Whether the right one is among the first so many."""
    return found < first


def classified(
    image: Features, classes: Others, names: Sequence[str], right: Sequence[str]
) -> dict[str, np.ndarray]:
    """`top_1` and `top_5` of each picture: whether its class is among those that fit best.

    classes: the unit vector of each class (`class_features`), by its name in `names`.
    """
    found = places(image @ classes.T, right, names)
    return {f"top_{first}": within(found, first) for first in (1, 5) if first < len(names)}


def class_features(text: Features, names: Sequence[str]) -> tuple[Others, list[str]]:
    """(the mean direction of each name's texts, the names) (Radford et al. 2021, sec. 3.1.4).

    text: the unit vectors of texts; names: of the class of each.
    """
    distinct = sorted(set(names))
    kinds = np.asarray(names)
    means = np.stack([text[kinds == name].mean(axis=0) for name in distinct])
    return means / np.linalg.norm(means, axis=1, keepdims=True), distinct


def retrieved(image: Features, text: Features, captions: Sequence[str]) -> dict[str, np.ndarray]:
    """Whether each picture finds its text among the first 1, 5 and 10, and each text its picture.

    Row i of both belongs together.
    """
    scores = image @ text.T
    by_picture = places(scores, captions, captions)
    by_text = places(scores.T, captions, captions)
    rows = {}
    for first in FIRST:
        if first < len(captions):
            rows[f"text_in_{first}"] = within(by_picture, first)
            rows[f"image_in_{first}"] = within(by_text, first)
    return rows


@dataclass(frozen=True)
class Matching:
    """The score of a task that compares pictures with texts, from the features of its preview.

    Retrieval among all examples; and if they have names, of which several share one, the
    classification of pictures by the mean of the captions of each name.
    """

    def __call__(self, made: Mapping[str, np.ndarray], examples: Examples) -> Scores:
        """Shares of the whole set by name."""
        image, text = (np.asarray(made[f"clip_{part}"], np.float64) for part in ("image", "text"))
        rows = retrieved(image, text, examples.captions)
        if all(examples.names):
            classes, names = class_features(text, examples.names)
            rows |= classified(image, classes, names, examples.names)
        return {name: hits.astype(np.float64) for name, hits in rows.items()}


def shares(rows: Mapping[str, np.ndarray]) -> JsonObject:
    """Each share with its 95 % interval (Wilson 1927)."""
    result: JsonObject = {}
    for name, hits in rows.items():
        low, high = interval(int(hits.sum()), len(hits))
        result[name] = {"share": float(hits.mean()), "low": low, "high": high, "of": len(hits)}
    return result
