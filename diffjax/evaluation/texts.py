"""How well pictures fit their captions, by a CLIP: of made pictures, and of true ones beside."""

from collections.abc import Sequence

import numpy as np

from diffjax.evaluation.metrics.clip_score import DISTRACTORS, clip_score, r_precision
from diffjax.evaluation.metrics.features import Features, Others
from diffjax.evaluation.sets import Found

NO_CAPTIONS = "the pictures have no captions"


def fit(
    made: Features, text: Others | None, captions: Sequence[str], real: Features | None = None
) -> Found:
    """`clip_score`, `clip_score_real` and `r_precision`, all as means over the pictures.

    made: the vectors of made pictures; text: of their captions, None if they have none; real: of
    the true pictures of these captions, if there are some. R-precision is among 99 wrong texts, or
    as many as there are.

    Raises:
      InputError: a vector is not finite or zero.
    """
    if text is None:
        return Found(left_out=dict.fromkeys(("clip_score", "r_precision"), NO_CAPTIONS))
    numbers = {"clip_score": float(np.mean(clip_score(made, text)))}
    if real is not None:
        numbers["clip_score_real"] = float(np.mean(clip_score(real, text)))
    others = min(DISTRACTORS, len(set(captions)) - 1)
    if others < 1:
        return Found(numbers, {"r_precision": "all captions are the same"})
    found = r_precision(made, text, captions, distractors=others)
    return Found({**numbers, "r_precision": float(np.mean(found)), "r_precision_of": others + 1.0})
