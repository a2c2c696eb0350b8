"""Some records of another source: those of a split, or of a slice."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from diffjax.data.record import (
    NoSplit,
    Record,
    RecordSource,
    fingerprint_of,
    identity_of,
    name_at,
    stored_captions,
)


class Chosen:
    """The records of `source` at `indices`, in that order.

    described: how they were chosen, for the fingerprint.
    """

    def __init__(self, source: RecordSource, indices: Int[np.ndarray, " n"], described: str):
        self._source, self._indices, self._described = source, indices, described
        self.classes: tuple[str, ...] = getattr(source, "classes", ())
        self.unchecked: bool = getattr(source, "unchecked", False)

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        """The record at `index`."""
        return self._source[self._index(index)]

    def __repr__(self) -> str:
        """As messages name it."""
        return f"{self._source!r}, {self._described}"

    def name(self, index: int) -> str:
        """The record's name."""
        return name_at(self._source, self._index(index))

    def captions(self, index: int) -> object:
        """The captions of the record at `index`."""
        return stored_captions(self._source, self._index(index))

    def captioned(self) -> bool:
        """Whether records have captions, as far as the source knows."""
        known = getattr(self._source, "captioned", None)
        return True if known is None else known()

    def told_by_folders(self) -> bool:
        """Whether the names of folders stand for captions that are missing; see `folder.py`."""
        known = getattr(self._source, "told_by_folders", None)
        return False if known is None else known()

    def fingerprint(self) -> str | None:
        """The source's, and how the records were chosen."""
        return self._with_choice(fingerprint_of(self._source))

    def identity(self) -> str | None:
        """The source's, and how the records were chosen."""
        return self._with_choice(identity_of(self._source))

    def _with_choice(self, whole: str | None) -> str | None:
        if whole is None:
            return None
        return hashlib.sha256(f"{whole} {self._described}".encode()).hexdigest()

    def _index(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} records")
        return int(self._indices[index])


def split_by_hash(source: RecordSource, split: str, share: float) -> RecordSource:
    """The records of "train" or "validation": about `share` of them are kept for validation.

    Which of them depends on their names alone, or else their numbers, so that more records change
    the split of none. A
    share of 0 leaves all for training.

    Raises:
      NoSplit: another split, or one without a record.
    """
    if split not in ("train", "validation"):
        raise NoSplit(f"no split {split!r}, only 'train' and 'validation'")
    if not share:
        if split == "train":
            return source
        raise NoSplit(
            f"{source!r} has no splits, all of it is trained on; data.validation=0.05 keeps a "
            "twentieth out"
        )
    held_out = np.array(
        [_fraction(name_at(source, i) or str(i)) < share for i in range(len(source))], bool
    )
    indices = np.flatnonzero(held_out if split == "validation" else ~held_out)
    if not len(indices):
        raise NoSplit(
            f"{source!r} has no record in the split {split!r} with data.validation={share:g}"
        )
    return Chosen(source, indices, f"{split} of {share:g} kept for validation")


def _fraction(name: str) -> float:
    """In [0, 1), by the name's hash."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def sliced(source: RecordSource, first: int | None, last: int | None) -> RecordSource:
    """The records from `first` on up to, and without, `last`."""
    indices = np.arange(len(source))[first:last]
    if not len(indices):
        raise ValueError(f"{source!r} has no record in [{first or ''}:{last or ''}]")
    return Chosen(source, indices, f"[{first or ''}:{last or ''}]")


def by_names(source: RecordSource, names: Sequence[str]) -> RecordSource:
    """The records of these names; ValueError for a name that no record has."""
    wanted = set(names)
    present = [name_at(source, i) for i in range(len(source))]
    missing = sorted(wanted - set(present))
    if missing:
        raise ValueError(f"{source!r} has no record of the name {missing[0]!r}")
    indices = np.array([i for i, name in enumerate(present) if name in wanted])
    return Chosen(source, indices, f"names {sorted(wanted)}")
