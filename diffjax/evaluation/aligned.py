"""How near the vectors that a prior makes of texts come to those of the pictures."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from diffjax.evaluation.examples import Examples
from diffjax.evaluation.matching import places, within
from diffjax.evaluation.measure import Scores
from diffjax.tasks.vectors import IMAGE_VECTOR, MADE_VECTOR, TEXT_VECTOR

FIRST = (1, 5, 10)


@dataclass(frozen=True)
class Aligned:
    """The score of a prior, from the `made_vector` of its preview.

    `cosine_made` and `cosine_text`: of the true vector of the picture with the one that was made,
    and with that of the text, which a prior must beat. `made_in_K`: whether the drawings of the
    name that was asked for are among the K whose vectors are nearest to the one that was made.
    """

    def __call__(self, made: Mapping[str, np.ndarray], examples: Examples) -> Scores:
        """A row per example; one without a text has no `cosine_text`."""
        true = unit(examples.columns[IMAGE_VECTOR])
        text, found = unit(examples.columns[TEXT_VECTOR]), unit(made[MADE_VECTOR])
        cosine = np.sum(text * true, axis=1)
        rows = {
            "cosine_made": np.sum(found * true, axis=1),
            "cosine_text": np.where(text.any(axis=1), cosine, np.nan),
        }
        names = examples.names if all(examples.names) else examples.captions
        nearest = places(found @ true.T, names, names)
        return rows | {
            f"made_in_{first}": within(nearest, first).astype(np.float64)
            for first in FIRST
            if first < len(names)
        }


def unit(rows: np.ndarray) -> Float[np.ndarray, "n e"]:
    """x / |x| in float64; zeros stay."""
    rows = np.asarray(rows, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
