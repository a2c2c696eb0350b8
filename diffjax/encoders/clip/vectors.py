"""A column that a frozen CLIP computes from pictures: the unit vector of each record's picture.

The vectors of all records are computed once and kept in a file of the user's cache, by the CLIP and
by the data. They are those of whole pictures, however training crops or mirrors them.
"""

import functools
import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from diffjax.core.files import write_whole
from diffjax.data import transforms
from diffjax.data.broken import BrokenRecord
from diffjax.data.record import (
    Record,
    RecordSource,
    fingerprint_of,
    identity_of,
    image_of,
    name_at,
    stored_captions,
)
from diffjax.encoders.cache.cache import users_folder
from diffjax.encoders.clip.encoder import BATCH
from diffjax.images.colour import WHITE


@runtime_checkable
class Encodes(Protocol):
    """A frozen network that makes a vector of each picture: a CLIP, or the backbone of one."""

    @property
    def side_px(self) -> int:
        """Of the pictures."""
        ...

    @property
    def width(self) -> int:
        """Of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """What the vectors depend on beside the pictures."""
        ...

    def of_pictures(self, pictures: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n e"]:
        """The vectors of pictures."""
        ...


class WithVectors:
    """The records of `source`, each with its row of the file `vectors` as the field `of`."""

    def __init__(self, source: RecordSource, of: str, vectors: Path):
        self._source, self._of, self._vectors = source, of, vectors
        self.classes: tuple[str, ...] = getattr(source, "classes", ())
        self.unchecked: bool = getattr(source, "unchecked", False)

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        """The record at `index`, with its vector."""
        return {**self._source[index], self._of: np.array(_opened(self._vectors)[index])}

    def __repr__(self) -> str:
        """As messages name it."""
        return repr(self._source)

    def vectors(self) -> Float[np.ndarray, "n e"]:
        """The vectors of all records; zeros for a picture that is broken."""
        return _opened(self._vectors)

    def name(self, index: int) -> str:
        """The record's name."""
        return name_at(self._source, index)

    def captions(self, index: int) -> object:
        """The captions of the record at `index`."""
        return stored_captions(self._source, index)

    def captioned(self) -> bool:
        """Whether records have captions, as far as the source knows."""
        known = getattr(self._source, "captioned", None)
        return True if known is None else known()

    def fingerprint(self) -> str | None:
        """The source's: what is trained on beside the vectors."""
        return fingerprint_of(self._source)

    def identity(self) -> str | None:
        """The source's."""
        return identity_of(self._source)


def with_vectors(
    source: RecordSource,
    of: str,
    clip: Encodes,
    ground: str = WHITE,
    progress: Callable[[int, int], None] | None = None,
) -> WithVectors:
    """The records with the vectors of their pictures, which are computed unless they are known.

    A picture that is broken gets zeros; whoever reads it will be told.

    Raises:
      StorageError: the disk has no room for the vectors.
    """
    path = file_of(source, clip, ground)
    if not path.exists():
        rows = list(_rows(source, clip, ground, progress))
        data = io.BytesIO()
        np.save(data, np.concatenate(rows) if rows else np.zeros((0, clip.width)))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data.getvalue())
    return WithVectors(source, of, path)


def file_of(source: RecordSource, clip: Encodes, ground: str = WHITE) -> Path:
    """The file of the vectors, which is named after all that they depend on.

    Records without a fingerprint are known by their description and number.
    """
    whose = fingerprint_of(source) or repr(source)
    said = f"{whose} {len(source)} {ground} {clip.fingerprint}"
    return users_folder() / "vectors" / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.npy"


def _rows(
    source: RecordSource, clip: Encodes, ground: str, progress: Callable[[int, int], None] | None
) -> Iterator[Float[np.ndarray, "b e"]]:
    """The vectors of BATCH records after the other."""
    size_px = clip.side_px
    for first in range(0, len(source), BATCH):
        pictures, broken = [], []
        for index in range(first, min(first + BATCH, len(source))):
            try:
                loaded = transforms.load(image_of(source[index]), ground)
                pictures.append(transforms.square(loaded, size_px, "centre", ground=ground))
            except BrokenRecord:
                broken.append(len(pictures))
                pictures.append(np.zeros((size_px, size_px, 3), np.uint8))
        made = clip.of_pictures(np.stack(pictures)).astype(np.float32)
        made[broken] = 0.0
        if progress:
            progress(first + len(made), len(source))
        yield made


@functools.lru_cache(maxsize=8)
def _opened(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")
