"""Scores of the set of pictures that a task makes of all examples: distances and CLIP scores.

Training goes on whatever the pictures are: numbers that cannot be had are left out with a line.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from diffjax.core.errors import InputError
from diffjax.encoders.clip.encoder import Clip
from diffjax.evaluation import sets, texts
from diffjax.evaluation.collect import collect, to_bytes
from diffjax.evaluation.examples import Examples
from diffjax.evaluation.extractors.extractor import Extractor
from diffjax.evaluation.measure import Scores
from diffjax.evaluation.metrics.features import Features
from diffjax.evaluation.sets import Set

# Of the numbers of sets, those that are logged: the others change with these or are for reports.
LOGGED, FITTED = ("fid", "fd_", "kid"), ("clip_score", "r_precision")


@dataclass(frozen=True, eq=False)
class Distance:
    """How far the made pictures are from the true ones of the same examples, as two sets.

    With fewer examples than features the distance has their number in its name, as
    `fd_lite0_of_64`. The number stays the same during a run, so its values can be compared.
    """

    extractor: Extractor
    real: Set

    def __call__(self, made: Mapping[str, np.ndarray], examples: Examples) -> Scores:
        """The Frechet distance and the kernel distance; {} if the pictures show nothing."""
        try:
            pictures = to_bytes("made", made["made"])
            found = collect("made", [pictures], self.extractor, asked=len(examples)).whole
            every = sets.compare(found, self.real, self.extractor.label)
        except InputError as error:
            return _none(self.extractor.label, error)
        logged = {k: v for k, v in every.numbers.items() if k.startswith(LOGGED)}
        return {name: np.array(value) for name, value in logged.items()}


def distance_to(examples: Examples, extractor: Extractor) -> Distance:
    """The distance from the pictures of these examples.

    Raises:
      InputError: they show nothing, or there are fewer than two.
    """
    pictures = np.asarray(examples.columns["image"])
    return Distance(extractor, collect("real", [pictures], extractor, asked=len(examples)).whole)


@dataclass(frozen=True, eq=False)
class Fit:
    """How well the made pictures fit the captions of their examples, by a CLIP.

    text: the vectors of the captions.
    """

    clip: Clip
    text: Features

    def __call__(self, made: Mapping[str, np.ndarray], examples: Examples) -> Scores:
        """`clip_score` and `r_precision`, as means; {} if they cannot be had."""
        try:
            pictures = self.clip.of_pictures(to_bytes("made", made["made"]))
            found = texts.fit(pictures, self.text, examples.captions)
        except InputError as error:
            return _none("clip_score", error)
        return {k: np.array(v) for k, v in found.numbers.items() if k in FITTED}


def fit_to(examples: Examples, clip: Clip) -> Fit:
    """The score by the captions of these examples.

    Raises:
      InputError: they have no captions.
    """
    if not any(examples.captions):
        raise InputError(f"clip_score: {texts.NO_CAPTIONS}")
    return Fit(clip, clip.of_captions(examples.captions))


def _none(name: str, error: InputError) -> Scores:
    print(f"evaluation: no {name}: {error}", flush=True)
    return {}
