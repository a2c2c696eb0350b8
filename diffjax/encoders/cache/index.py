"""Which captions a cache has, and where: sorted 128-bit digests, searched by halving.

On disk: crc32 of what follows, the number n of captions (uint64 each), the places [n] (uint64,
shard * 2^32 + position), the digests [n] (16 bytes). The file's name is made of the names of the
shards that it lists, so it is never out of date: with other shards it is not looked for.
"""

import dataclasses
import hashlib
import zlib
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Bool, Shaped, UInt64

from diffjax.encoders.cache import rows, shards


@dataclasses.dataclass(frozen=True)
class Index:
    """`shards` in order; `digests` (S16) sorted, each once, and where the caption of each lies."""

    shards: tuple[str, ...]
    digests: Shaped[np.ndarray, "n"] = dataclasses.field(repr=False)
    places: UInt64[np.ndarray, "n"] = dataclasses.field(repr=False)

    def find(self, caption: str) -> tuple[str, int] | None:
        """(shard, position) of a caption, None if it is not there."""
        digest = rows.digests([caption])
        row = int(np.searchsorted(self.digests, digest)[0])
        if row == len(self.digests) or self.digests[row] != digest[0]:
            return None
        place = int(self.places[row])
        return self.shards[place >> 32], place & 0xFFFFFFFF


def load(folder: Path, header: shards.Header) -> Index:
    """The index of all finished shards: the file, memory-mapped, or else made from the shards."""
    found = tuple(shards.finished(folder))
    path = _path(folder, found)
    try:
        raw = np.memmap(path, np.uint64, "r").view(np.ndarray)
        count = int(raw[1])
        if len(raw) == 2 + 3 * count and int(raw[0]) == zlib.crc32(raw[1:].data):
            return Index(found, raw[2 + count :].view("S16"), raw[2 : 2 + count])
        logging.warning("%s is damaged; made anew from the shards", path)
    except FileNotFoundError:
        pass
    except (ValueError, IndexError, OSError) as error:
        logging.warning("%s: %s; made anew from the shards", path, error)
    return scan(folder, found, header)


def scan(folder: Path, found: tuple[str, ...], header: shards.Header) -> Index:
    """The index that the shards themselves tell; ValueErrors of `shards.contents`."""
    parts = [shards.contents(folder, name, header) for name in found]
    digests = np.concatenate([np.zeros(0, "S16"), *parts])
    places = np.concatenate(
        [np.zeros(0, np.uint64)]
        + [(i << 32) + np.arange(len(part), dtype=np.uint64) for i, part in enumerate(parts)]
    )
    # Two processes that were told of the same caption at once may both have written it.
    digests, first = np.unique(digests, return_index=True)
    return Index(found, digests, places[first])


def save(folder: Path, index: Index, owner: str) -> None:
    """Keep the index for the next reader, instead of older ones; StorageError if there is no room.

    Without it a reader takes a little longer to open.
    """
    path = _path(folder, index.shards)
    if not path.exists():
        count = np.array([len(index.digests)], np.uint64)
        content = count.tobytes() + index.places.tobytes() + index.digests.tobytes()
        crc = np.array([zlib.crc32(content)], np.uint64)
        shards.write_whole(path, crc.tobytes() + content, owner)
    for old in folder.glob("index-*.bin"):
        if old != path:
            old.unlink(missing_ok=True)


def _path(folder: Path, names: tuple[str, ...]) -> Path:
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return folder / f"index-{digest[:16]}.bin"


class Seen:
    """A growing set of digests: sorted runs, merged when they are alike in size.

    Each digest is merged about log2(n) times and looked for in as many runs.
    """

    def __init__(self, digests: Shaped[np.ndarray, "n"]):
        self._runs = [digests]

    def has(self, digests: Shaped[np.ndarray, "m"]) -> Bool[np.ndarray, "m"]:
        """Which of them are in the set."""
        found = np.zeros(len(digests), bool)
        for run in self._runs:
            if len(run):
                rows = np.minimum(np.searchsorted(run, digests), len(run) - 1)
                found |= run[rows] == digests
        return found

    def add(self, digests: Shaped[np.ndarray, "m"]) -> None:
        """Sorted ones, none of them in the set."""
        self._runs.append(digests)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            last = self._runs.pop()
            self._runs[-1] = np.sort(np.concatenate([self._runs[-1], last]))
