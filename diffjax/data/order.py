"""In which order records come: shuffled anew in every epoch, and mixed by weights."""

from collections.abc import Sequence
from fractions import Fraction
from typing import overload

import grain

from diffjax.data.record import RecordSource
from diffjax.data.sources.mixture import Mixture


def endless(source: RecordSource, seed: int) -> grain.MapDataset[int]:
    """The indices of the source's records, endlessly, as a function of the seed and the place.

    Without weights every epoch has each record once, in a new order. A mixture of unequal weights
    has epochs of its parts, each with an order of its own, which take turns evenly.
    """
    if not isinstance(source, Mixture) or len(set(source.weights)) == 1:
        return grain.MapDataset.source(range(len(source))).seed(seed).shuffle().repeat()
    parts = [
        grain.MapDataset.source(range(first, first + len(part))).seed(seed + i).shuffle().repeat()
        for i, (first, part) in enumerate(zip(source.first_indices, source.parts, strict=True))
    ]
    weights = [Fraction(weight).limit_denominator(10_000) for weight in source.weights]
    turns = [weight * len(part) for weight, part in zip(weights, source.parts, strict=True)]
    whole = sum(turns)
    return Interleaved(parts, [turn / whole for turn in turns]).seed(seed)


class Interleaved(grain.MapDataset[int]):
    """Endless parts in turn, as evenly as their shares allow."""

    def __init__(self, parts: Sequence[grain.MapDataset[int]], shares: Sequence[Fraction]):
        super().__init__(parts)
        self._shares = tuple(shares)

    def __len__(self) -> int:
        """As good as endless."""
        return min(len(part) for part in self._parents)

    @overload
    def __getitem__(self, index: slice) -> grain.MapDataset[int]: ...
    @overload
    def __getitem__(self, index: int) -> int | None: ...
    def __getitem__(self, index: slice | int) -> grain.MapDataset[int] | int | None:
        """What is at an index, or a slice of it."""
        if isinstance(index, slice):
            return self.slice(index)
        part, inside = turn_of(index, self._shares)
        return self._parents[part][inside]


def turn_of(place: int, shares: Sequence[Fraction]) -> tuple[int, int]:
    """Whose turn it is at a place, and how many turns it has had before.

    The first part has had floor(n s) of the first n turns, s being its share; of the others' turns
    the second has had as many by its share of what is left, and so on. The shares add up to 1.
    """
    left, before, after = Fraction(1), place, place + 1
    for part, share in enumerate(shares):
        had, has = before * share // left, after * share // left
        if has > had or part == len(shares) - 1:
            return part, int(had) if part < len(shares) - 1 else before
        left, before, after = left - share, before - int(had), after - int(has)
    raise AssertionError("unreachable: the last part takes every turn that is left")
