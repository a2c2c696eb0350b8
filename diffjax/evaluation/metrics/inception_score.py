"""The Inception score, of a classifier's logits (Salimans et al. 2016)."""

import numpy as np

from diffjax.core.errors import InputError
from diffjax.evaluation.metrics.features import Features, Spread, checked

SPLITS, SEED = 10, 2020  # torch-fidelity's


def inception_score(logits: Features, *, splits: int = SPLITS, seed: int | None = SEED) -> Spread:
    """exp E KL(p(class | picture) || p(class)), of each of `splits` parts: mean and deviation.

    seed: of the order in which the pictures are dealt to the parts, as torch-fidelity does it; None
    keeps the order given.

    Raises:
      InputError: there are fewer than two pictures for each part, or what `checked` refuses.
    """
    if splits < 1:
        raise InputError(f"splits = {splits}: want at least 1")
    exact, count = checked("logits", logits, at_least=2 * splits), len(logits)
    if seed is not None:
        exact = exact[np.random.RandomState(seed).permutation(count)]
    shifted = exact - exact.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    scores = []
    for i in range(splits):
        part = log_p[i * count // splits : (i + 1) * count // splits]
        # A class whose share underflows to 0 has p = 0 in every row, and adds nothing.
        marginal = np.log(np.maximum(np.exp(part).mean(axis=0), np.finfo(np.float64).tiny))
        scores.append(np.exp(np.mean(np.sum(np.exp(part) * (part - marginal), axis=1))))
    return Spread(float(np.mean(scores)), float(np.std(scores)))
