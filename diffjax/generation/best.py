"""Keeps the best of several candidates of a picture: the one that a CLIP says fits its prompt best.

The candidates of a job differ in their seeds alone, and these are functions of the job's seed. So
the best one can be made again from its own seed, without the others and without the CLIP.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8

from diffjax.core.limits import MAX_SEED
from diffjax.encoders.clip.encoder import Clip
from diffjax.generation import parse, recipe
from diffjax.generation.jobs import Job

Picture: TypeAlias = UInt8[np.ndarray, "_ _ 3"]
# (prompt, picture) -> their cosine, in [-1, 1].
Score: TypeAlias = Callable[[str, Picture], float]
KEPT_TEXTS = 256
DIGITS = 6


@dataclasses.dataclass(frozen=True)
class Best:
    """Of each job, the best of `of` candidates. clip: the sha256 of the CLIP that `score` asks."""

    of: int
    clip: str
    score: Score


def scorer(clip: Clip) -> Score:
    """The cosine of a prompt's and a picture's vector, to DIGITS digits.

    Each is computed alone, so that a score does not depend on what else is scored.
    """
    alone = dataclasses.replace(clip, batch=1)
    text = functools.lru_cache(maxsize=KEPT_TEXTS)(lambda prompt: alone.of_captions([prompt])[0])

    def score(prompt: str, picture: Picture) -> float:
        product = np.sum(alone.of_pictures(picture[None])[0].astype(np.float64) * text(prompt))
        return float(np.clip(round(product, DIGITS), -1.0, 1.0))

    return score


def seeds_of(seed: int, of: int) -> tuple[int, ...]:
    """The seeds of the candidates: `seed` itself, and others drawn from (seed, number)."""
    seeds, number = [seed], 0
    while len(seeds) < of:
        number += 1
        drawn = hashlib.sha256(f"candidate {number} of seed {seed}".encode()).digest()
        other = int.from_bytes(drawn[:4], "big") & MAX_SEED
        if other not in seeds:
            seeds.append(other)
    return tuple(seeds)


def candidates_of(job: Job, of: int) -> tuple[Job, ...]:
    """The jobs of which one is kept."""
    return tuple(dataclasses.replace(job, seed=seed) for seed in seeds_of(job.seed, of))


def pick(
    best: Best, candidates: Sequence[Job], made: Iterator[list[Picture]]
) -> tuple[Job, float, list[Picture]]:
    """(the best candidate, its score, its pictures of all stages); the first of equally good ones.

    made: gives the pictures of each candidate in order; only two candidates are in memory at once.
    Scores are of the last, largest picture.
    """
    found: tuple[Job, float, list[Picture]] | None = None
    for job in candidates:
        pictures = next(made)
        score = best.score(job.prompt, pictures[-1])
        if found is None or score > found[1]:
            found = job, score, pictures
    if found is None:
        raise ValueError("candidates=(): there must be one")
    return found


def known(
    best: Best, asked: Job, paths: Sequence[Path]
) -> tuple[Job, recipe.Chosen, tuple[Job, ...]]:
    """(job, how it was chosen, candidates) of files that may be there already.

    If one of the files says that it is the best of these candidates, the job is the one that made
    it, and there are no candidates to try. Otherwise the score is still to be found.
    """
    seeds = seeds_of(asked.seed, best.of)
    for path in paths:
        try:
            said = parse.read(path) if path.is_file() else None
        except ValueError:
            continue
        if said is None or said.chosen is None or said.seed not in seeds:
            continue
        if dataclasses.replace(said.chosen, score=0.0) == _unscored(best, asked):
            return dataclasses.replace(asked, seed=said.seed), said.chosen, ()
    return asked, _unscored(best, asked), candidates_of(asked, best.of)


def _unscored(best: Best, asked: Job) -> recipe.Chosen:
    return recipe.Chosen(seed=asked.seed, of=best.of, clip=best.clip, score=0.0)
