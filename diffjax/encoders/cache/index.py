"""The index of a cache: the shard and position of each caption, by sorted 128-bit digests.

The file holds: the crc32 of all that follows, the number n of captions (uint64 each), the places
[n] (uint64, shard * 2^32 + position), and the digests [n] (16 bytes each). Its name is a hash of
the names of the shards, so an index of other shards is never used.
"""

import dataclasses
import hashlib
import zlib
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Bool, Shaped, UInt64

from diffjax.encoders.cache import records, shards


@dataclasses.dataclass(frozen=True)
class Index:
    """The names of the shards, the sorted digests (S16) of all captions, and the place of each."""

    shards: tuple[str, ...]
    digests: Shaped[np.ndarray, "n"] = dataclasses.field(repr=False)
    places: UInt64[np.ndarray, "n"] = dataclasses.field(repr=False)

    def find(self, caption: str) -> tuple[str, int] | None:
        """(shard, position) of a caption, or None."""
        digest = records.caption_digests([caption])
        row = int(np.searchsorted(self.digests, digest)[0])
        if row == len(self.digests) or self.digests[row] != digest[0]:
            return None
        place = int(self.places[row])
        return self.shards[place >> 32], place & 0xFFFFFFFF


def load(folder: Path, header: shards.Header) -> Index:
    """The index of all finished shards: memory-mapped from its file, or built from the shards."""
    found = tuple(shards.shard_names(folder))
    path = _path(folder, found)
    try:
        raw = np.memmap(path, np.uint64, "r").view(np.ndarray)
        count = int(raw[1])
        if len(raw) == 2 + 3 * count and int(raw[0]) == zlib.crc32(raw[1:].data):
            return Index(found, raw[2 + count :].view("S16"), raw[2 : 2 + count])
        logging.warning("%s is damaged; rebuilding it from the shards", path)
    except FileNotFoundError:
        pass
    except (ValueError, IndexError, OSError) as error:
        logging.warning("%s: %s; rebuilding it from the shards", path, error)
    return build_index(folder, found, header)


def build_index(folder: Path, found: tuple[str, ...], header: shards.Header) -> Index:
    """Build the index by reading the digests of each shard; raises as `shards.read_digests`."""
    parts = [shards.read_digests(folder, name, header) for name in found]
    digests = np.concatenate([np.zeros(0, "S16"), *parts])
    places = np.concatenate(
        [np.zeros(0, np.uint64)]
        + [(i << 32) + np.arange(len(part), dtype=np.uint64) for i, part in enumerate(parts)]
    )
    # Two processes that saw a new caption at the same time may both have written it.
    digests, first = np.unique(digests, return_index=True)
    return Index(found, digests, places[first])


def save(folder: Path, index: Index, owner: str) -> None:
    """Write the index for the next reader, and delete older ones.

    Without the file, opening the cache takes a little longer.

    Raises:
      StorageError: the disk is full or fails.
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


class DigestSet:
    """A growing set of digests, kept as sorted runs that are merged when they have similar sizes.

    Each digest is merged about log2(n) times, and a search looks into as many runs.
    """

    def __init__(self, digests: Shaped[np.ndarray, "n"]):
        self._runs = [digests]

    def contains(self, digests: Shaped[np.ndarray, "m"]) -> Bool[np.ndarray, "m"]:
        """Which of the digests are in the set."""
        found = np.zeros(len(digests), bool)
        for run in self._runs:
            if len(run):
                rows = np.minimum(np.searchsorted(run, digests), len(run) - 1)
                found |= run[rows] == digests
        return found

    def add(self, digests: Shaped[np.ndarray, "m"]) -> None:
        """Add sorted digests, none of which is in the set yet."""
        self._runs.append(digests)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            last = self._runs.pop()
            self._runs[-1] = np.sort(np.concatenate([self._runs[-1], last]))
