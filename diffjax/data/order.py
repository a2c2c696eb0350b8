"""In which order records come: shuffled anew in every epoch, and mixed by weights."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from diffjax.data.record import RecordSource
from diffjax.data.shuffle import shuffled
from diffjax.data.sources.mixture import Mixture

# The number of an example, from 0 on -> the index of its record. It pickles.
Order: TypeAlias = Callable[[int], int]


def endless(source: RecordSource, seed: int) -> Order:
    """The indices of the source's records, endlessly, as a function of the seed and the place.

    Without weights every epoch has each record once, in a new order. A mixture of unequal weights
    has epochs of its parts, each with an order of its own, which take turns evenly.
    """
    if not isinstance(source, Mixture) or len(set(source.weights)) == 1:
        return Shuffled(len(source), derived(seed, 1))
    parts = tuple(
        Shuffled(len(part), derived(seed + i, 1), first)
        for i, (first, part) in enumerate(zip(source.first_indices, source.parts, strict=True))
    )
    weights = [Fraction(weight).limit_denominator(10_000) for weight in source.weights]
    turns = [weight * len(part) for weight, part in zip(weights, source.parts, strict=True)]
    whole = sum(turns)
    return Interleaved(parts, tuple(turn / whole for turn in turns))


def seed_of_draws(source: RecordSource, seed: int) -> int:
    """The seed of the examples' random draws, another one than that of their order."""
    mixed = isinstance(source, Mixture) and len(set(source.weights)) > 1
    return derived(seed, 1 if mixed else 3)


def derived(seed: int, depth: int) -> int:
    """The seed that Grain derives from `MapDataset.seed(seed)` for what stands `depth` above it.

    Runs that Grain's own transformations shuffled go on with the same batches.
    """
    return int(np.random.SeedSequence([seed, depth]).generate_state(1, np.uint32)[0])


@dataclass(frozen=True)
class Shuffled:
    """The numbers from `first` to `first + count`, endlessly, each epoch in an order of its own."""

    count: int
    seed: int
    first: int = 0

    def __call__(self, place: int) -> int:
        """What is at a place, from 0 on."""
        epoch, inside = divmod(place, self.count)
        return self.first + shuffled(inside, self.count, (self.seed + epoch) % 2**32)


@dataclass(frozen=True)
class Interleaved:
    """Endless parts in turn, as evenly as their shares allow."""

    parts: tuple[Shuffled, ...]
    shares: tuple[Fraction, ...]

    def __call__(self, place: int) -> int:
        """What is at a place, from 0 on."""
        part, inside = turn_of(place, self.shares)
        return self.parts[part](inside)


def turn_of(place: int, shares: Sequence[Fraction]) -> tuple[int, int]:
    """Whose turn it is at a place, and how many turns it has had before.

    The first part has had floor(n s) of the first n turns, s being its share; of the others' turns
    the second has had as many by its share of what is left, and so on. The shares add up to 1.
    """
    before, after = place, place + 1
    *others, last = range(len(shares))
    for part, (of, every) in zip(others, _shares_of_what_is_left(tuple(shares)), strict=False):
        had, has = before * of // every, after * of // every
        if has > had:
            return part, had
        before, after = before - had, after - has
    return last, before


@functools.lru_cache(maxsize=64)
def _shares_of_what_is_left(shares: tuple[Fraction, ...]) -> tuple[tuple[int, int], ...]:
    """Each part's share of what the parts before it leave, as two whole numbers."""
    left, found = Fraction(1), []
    for share in shares:
        found.append((share / left).as_integer_ratio())
        left -= share
        if not left:
            break
    return tuple(found)
