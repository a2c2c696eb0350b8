"""How well pictures fit their texts, from the vectors of a CLIP."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from diffjax.core.errors import InputError
from diffjax.evaluation.metrics.features import Features, Others, check_widths, unit

SCALE = 100.0  # exp of the logit scale at which OpenAI's models ended
DISTRACTORS = 99  # wrong texts for each picture: Xu et al. 2018, sec. 4.1


def clip_score(image: Features, text: Others, scale: float = SCALE) -> Float[np.ndarray, " n"]:
    """s f(image) . g(text) for each pair of rows  (Nichol et al. 2022, sec. 4.1).

    This is the diagonal of the logits of a CLIP with logit scale `scale`; negative cosines count.

    Raises:
      InputError: the rows do not pair, or what `unit` and `check_widths` refuse.
    """
    x, y = _pairs(image, text)
    return scale * np.sum(x * y, axis=1)


def r_precision(
    image: Features,
    text: Others,
    captions: Sequence[str],
    *,
    distractors: int = DISTRACTORS,
    seed: int = 0,
) -> Float[np.ndarray, " n"]:
    """For each picture, 1 if its text fits best among `distractors` others  (Xu et al. 2018).

    The others are drawn without repetition from the texts whose words differ. If r of them fit
    exactly as well as the right one and none better, the picture counts 1 / (1 + r): vectors that
    say nothing get what chance would.

    Raises:
      InputError: there are too few different texts, or what `clip_score` refuses.
    """
    x, y = _pairs(image, text)
    if len(captions) != len(y):
        raise InputError(f"{len(captions)} captions for {len(y)} vectors of texts: want as many")
    first: dict[str, int] = {}
    for row, caption in enumerate(captions):
        first.setdefault(caption, row)
    if not 1 <= distractors < len(first):
        raise InputError(
            f"distractors = {distractors}: want 1 to {len(first) - 1}, there are {len(first)} "
            "different texts: lower distractors or add pictures"
        )
    different, draw, found = np.array(list(first.values())), np.random.default_rng(seed), []
    for row, caption in enumerate(captions):
        wrong = draw.choice(different[different != first[caption]], distractors, replace=False)
        # The right text is compared in the same product, so that equal vectors get equal numbers.
        right, *others = np.sum(y[[first[caption], *wrong]] * x[row], axis=1)
        better, equal = np.sum(others > right), np.sum(others == right)
        found.append(0.0 if better else 1.0 / (1.0 + equal))
    return np.array(found)


def _pairs(
    image: Features, text: Others
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]]:
    check_widths("image", image.shape[1], "text", text.shape[1])
    if len(image) != len(text) or not len(image):
        raise InputError(f"{len(image)} pictures and {len(text)} texts: want a text for each")
    return unit("image", image), unit("text", text)
