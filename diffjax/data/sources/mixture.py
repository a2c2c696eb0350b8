"""Several sources as one; a weight says how often a source's records are seen."""

import bisect
import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from diffjax.data.record import (
    Record,
    RecordSource,
    fingerprint_of,
    identity_of,
    label_of,
    name_at,
    stored_captions,
)

Labels: TypeAlias = tuple[int, ...]


class Mixture:
    """All records of `parts`, one part after the other.

    weights: a record of a part with weight 2 is seen twice as often as one of a part with weight
    1. Where all are equal, every epoch has each record once.

    Where the parts have different classes, the mixture has all of them, once each: labels of equal
    names become one. A label without a name is then left out, since it could mean any of them.
    """

    def __init__(self, parts: Sequence[RecordSource], weights: Sequence[float]):
        if len(parts) != len(weights) or not all(0 < weight < np.inf for weight in weights):
            raise ValueError(f"weights {list(weights)}: want {len(parts)} numbers above 0")
        self.parts, self.weights = tuple(parts), tuple(float(weight) for weight in weights)
        self._ends = list(itertools.accumulate(map(len, parts)))
        self.classes, self._labels = merged_classes([_classes(part) for part in parts])
        self.unchecked = any(getattr(part, "unchecked", False) for part in parts)

    def __len__(self) -> int:
        """How many records there are, each counted once."""
        return self._ends[-1]

    def __getitem__(self, index: int) -> Record:
        """The record at `index`."""
        part, inside = self._place(index)
        record = self.parts[part][inside]
        labels = self._labels[part]
        if labels is None or "label" not in record:
            return record
        label = label_of(record)
        rest = {name: value for name, value in record.items() if name != "label"}
        return rest | {"label": labels[label]} if 0 <= label < len(labels) else rest

    def __repr__(self) -> str:
        """As messages name it."""
        return " + ".join(
            f"{part!r} * {weight:g}" for part, weight in zip(self.parts, self.weights, strict=True)
        )

    @property
    def first_indices(self) -> tuple[int, ...]:
        """The index of each part's first record."""
        return (0, *self._ends[:-1])

    def shares(self) -> list[float]:
        """Which share of all examples comes from each part."""
        seen = [weight * len(part) for part, weight in zip(self.parts, self.weights, strict=True)]
        return [each / sum(seen) for each in seen]

    def name(self, index: int) -> str:
        """The record's name."""
        part, inside = self._place(index)
        return name_at(self.parts[part], inside)

    def captions(self, index: int) -> object:
        """The captions of the record at `index`."""
        part, inside = self._place(index)
        return stored_captions(self.parts[part], inside)

    def captioned(self) -> bool:
        """Whether a part has captions, as far as it knows."""
        known = (getattr(part, "captioned", None) for part in self.parts)
        return any(one is None or one() for one in known)

    def fingerprint(self) -> str | None:
        """The parts' and their weights; None if a part has none."""
        return self._with_weights([fingerprint_of(part) for part in self.parts])

    def identity(self) -> str | None:
        """The parts' and their weights; None if a part has none."""
        return self._with_weights([identity_of(part) for part in self.parts])

    def _with_weights(self, each: Sequence[str | None]) -> str | None:
        if None in each:
            return None
        content = json.dumps(["mixture", list(each), self.weights])
        return hashlib.sha256(content.encode()).hexdigest()

    def _place(self, index: int) -> tuple[int, int]:
        """Which part, and which record of it."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} records")
        part = bisect.bisect_right(self._ends, index)
        return part, index - (self._ends[part - 1] if part else 0)


def merged_classes(
    parts: Sequence[tuple[str, ...]],
) -> tuple[tuple[str, ...], list[Labels | None]]:
    """(The classes of all parts, for each part its labels' new numbers, None to keep them).

    Classes come in the order of the parts, and each once. Equal classes keep their numbers.
    """
    merged = tuple(dict.fromkeys(itertools.chain.from_iterable(parts)))
    if len(set(parts)) == 1:
        return parts[0], [None] * len(parts)
    number = {name: label for label, name in enumerate(merged)}
    return merged, [tuple(number[name] for name in classes) for classes in parts]


def _classes(part: RecordSource) -> tuple[str, ...]:
    return tuple(getattr(part, "classes", ()))
