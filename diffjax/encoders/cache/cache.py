"""Embeddings of captions on disk: computed once, then looked up by the caption.

A cache is a directory (shards.py, index.py): a header that says which encoder made it, ArrayRecord
shards with each caption once at its real length, and an index of them by digest. Neither captions
nor embeddings are held in memory: not while writing, not while reading.
"""

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
from absl import logging
from jaxtyping import Bool, Shaped

from diffjax.core.errors import BadData
from diffjax.encoders.cache import index as indices
from diffjax.encoders.cache import rows, shards
from diffjax.encoders.cache.rows import STORAGES, Damaged
from diffjax.encoders.cache.shards import Header, Shards, StorageError
from diffjax.encoders.t5 import TextEncoder

__all__ = [
    "STORAGES", "Damaged", "Embeddings", "Header", "MissingCaption", "StorageError",
    "ensure", "extend", "header_of", "null_text", "open_cache", "users_path",
]  # fmt: skip

SHARD_BYTES = 256 << 20
SHARD_SECONDS = 600  # no more than this much work is lost with a killed process
WINDOW = 16_384  # captions read ahead, to be encoded in order of length


class MissingCaption(BadData, KeyError):
    """A caption that the cache does not hold. Exit code 2."""

    def __str__(self) -> str:
        """Without the quotes that a KeyError puts around its key."""
        return str(self.args[0])


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """A cache opened for reading. All stays on disk until asked for; it pickles as its path."""

    path: Path
    header: Header
    index: indices.Index = dataclasses.field(repr=False)
    shards: Shards = dataclasses.field(repr=False, compare=False)

    def __getitem__(self, caption: str) -> Shaped[np.ndarray, "l d"]:
        """Its embeddings in bfloat16, without padding; an unknown caption is a MissingCaption.

        Damaged (a ValueError) names the shard and the remedy when the bytes are not those written.
        """
        place = self.index.find(caption)
        if place is None:
            raise MissingCaption(
                f"{self.path}: no caption {caption!r} among its {len(self)}; "
                f"python -m diffjax.embed --out {self.path} adds captions"
            )
        found, row = self._read(*place)
        if found != caption:
            raise shards.damaged(self.path / place[0], place[1], "another caption stands there")
        return row

    def embed(self, caption: str) -> Shaped[np.ndarray, "l d"]:
        """As training is told it: the caption's embeddings, or for "" the null text.

        That is zeros seen at one position (tasks/text.py: null_text), whatever the encoder would
        say of no words; it needs no place in the cache.
        """
        return self[caption] if caption else null_text(self.header.width)

    def batch(
        self, captions: Sequence[str], length: int
    ) -> tuple[Shaped[np.ndarray, "b l d"], Bool[np.ndarray, "b l"]]:
        """(embeddings, mask) padded to `length` tokens; a longer caption is a ValueError."""
        found = [self[caption] for caption in captions]
        longest = max((len(row) for row in found), default=0)
        if longest > length:
            raise ValueError(f"{self.path}: length={length}, but a caption has {longest} tokens")
        out = np.zeros((len(found), length, self.header.width), ml_dtypes.bfloat16)
        for i, row in enumerate(found):
            out[i, : len(row)] = row
        lengths = np.array([len(row) for row in found], int)
        return out, np.arange(length)[None, :] < lengths[:, None]

    def __contains__(self, caption: object) -> bool:
        """Whether the caption is there."""
        return isinstance(caption, str) and self.index.find(caption) is not None

    def __len__(self) -> int:
        """How many captions."""
        return len(self.index.digests)

    def __iter__(self) -> Iterator[str]:
        """The captions, shard by shard; each record is read and checked."""
        for place in np.sort(self.index.places):
            yield self._read(self.index.shards[int(place) >> 32], int(place) & 0xFFFFFFFF)[0]

    def _read(self, shard: str, position: int) -> tuple[str, np.ndarray]:
        record = self.shards.read(shard, position)
        try:
            return rows.unpack(record, self.header.width, self.header.storage)
        except ValueError as error:
            raise shards.damaged(self.path / shard, position, error) from None

    def __reduce__(self) -> tuple[Callable[[Path], "Embeddings"], tuple[Path]]:
        """Worker processes open the files themselves."""
        return open_cache, (self.path,)


def null_text(width: int) -> Shaped[np.ndarray, "1 d"]:
    """The embedding of no text, of a caption that is blank or not there: zeros at one position."""
    return np.zeros((1, width), ml_dtypes.bfloat16)


def header_of(encoder: TextEncoder, storage: str = "bfloat16") -> Header:
    """What a cache made by `encoder` says of itself."""
    if storage not in STORAGES:
        raise ValueError(f"storage={storage!r}, want one of {', '.join(STORAGES)}")
    return Header(encoder.name, encoder.fingerprint, encoder.width, encoder.max_length, storage)


def open_cache(path: str | os.PathLike, encoder: TextEncoder | None = None) -> Embeddings:
    """The cache at `path`; not one, or not `encoder`'s (whatever its storage), is a ValueError."""
    path = Path(path).expanduser()
    header = shards.read_header(path)
    if encoder is not None:
        shards.check(path, header, header_of(encoder, header.storage))
    return Embeddings(path, header, indices.load(path, header), Shards(path))


def users_path(encoder: TextEncoder) -> Path:
    """Where this encoder's cache is kept if no other place is named.

    Below $DIFFJAX_CACHE_DIR, or diffjax in the user's cache.
    """
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    folder = Path(os.environ.get("DIFFJAX_CACHE_DIR", f"{base}/diffjax")).expanduser()
    return folder / f"{encoder.name}-{encoder.fingerprint[:8]}-{encoder.max_length}"


def extend(
    path: str | os.PathLike,
    encoder: TextEncoder,
    captions: Iterable[str],
    *,
    storage: str = "bfloat16",
    batch_size: int = 64,
    process_index: int = 0,
    process_count: int = 1,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], object] = lambda: False,
    shard_bytes: int = SHARD_BYTES,
    window: int = WINDOW,
) -> int:
    """Encode what is not yet in the cache at `path`, made if need be; returns how many captions.

    Each process of `process_count` encodes the captions whose digest falls to it; together they
    fill one directory. `progress(done, encoded)` is called after each batch: captions read and
    dealt with, and those of them that were encoded. When `stop()` is true the shard at hand is
    finished and no more done. A process that is killed loses its unfinished shard and no more.

    Raises:
      ValueError: the directory is another encoder's, or a number cannot be.
      StorageError: the disk is full; finished shards stay, and the same call goes on from them.
      Damaged: a shard's list of captions cannot be read.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}, want at least 1")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index={process_index}, want 0 to {process_count - 1}")
    folder, header = Path(path), header_of(encoder, storage)
    owner = f"process-{process_index}-of-{process_count}"
    with shards.owned(folder, owner, header):
        seen = indices.Seen(indices.load(folder, header).digests)
        done = encoded = 0
        shard: shards.ShardWriter | None = None
        try:
            for part in _windows(captions, window):
                fresh, digests = _fresh(part, seen, process_index, process_count)
                for start in range(0, len(fresh), batch_size):
                    end = min(start + batch_size, len(fresh))
                    if shard is None:
                        shard, opened = shards.ShardWriter(folder, header, owner), time.monotonic()
                    for i, row in zip(
                        range(start, end), _encode(encoder, fresh[start:end]), strict=True
                    ):
                        shard.add(digests[i : i + 1].tobytes(), rows.pack(fresh[i], row, storage))
                    encoded += end - start
                    if progress:
                        progress(done + len(part) - len(fresh) + end, encoded)
                    full = shard.num_bytes >= shard_bytes
                    if full or time.monotonic() - opened > SHARD_SECONDS:
                        shard.close()
                        shard = None
                    if stop():
                        break
                done += len(part)
                if stop():
                    break
            if shard is not None:
                shard.close()
                shard = None
        finally:
            if shard is not None:
                shard.discard()
        indices.save(folder, indices.load(folder, header), owner)
    return encoded


def ensure(
    path: str | os.PathLike,
    encoder: TextEncoder,
    captions: Iterable[str],
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Embeddings:
    """The cache at `path`, made to hold all `captions` of this `encoder`.

    Only what is missing is encoded. The captions are read once, as they come, and not kept.
    `progress(done, missing)`: captions encoded, and those that were found to be missing so far.
    Raises what `extend` does.
    """
    found = 0

    def counted(missing: Iterable[str]) -> Iterator[str]:
        nonlocal found
        for caption in missing:
            found += 1
            yield caption

    known = open_cache(path, encoder) if (Path(path) / shards.HEADER).exists() else None
    missing = counted(_unseen(captions, known.index.digests if known else np.zeros(0, "S16")))
    first = next(missing, None)
    if known is not None and first is None:
        return known
    logging.info("%s: captions to encode", path)
    rest = () if first is None else itertools.chain([first], missing)

    def told(done: int, encoded: int) -> None:
        if progress:
            progress(done, found)

    extend(path, encoder, rest, batch_size=batch_size, progress=told)
    return open_cache(path, encoder)


def _unseen(captions: Iterable[str], known: Shaped[np.ndarray, "n"]) -> Iterator[str]:
    """Those whose digests are not among the known ones, each once, in their order."""
    seen = indices.Seen(known)
    for part in _windows(captions, WINDOW):
        digests, first = np.unique(rows.digests(part), return_index=True)
        fresh = ~seen.has(digests)
        seen.add(digests[fresh])
        yield from (part[i] for i in np.sort(first[fresh]))


def _windows(captions: Iterable[str], size: int) -> Iterator[list[str]]:
    captions = iter(captions)
    while part := list(itertools.islice(captions, size)):
        yield part


def _fresh(
    part: list[str], seen: indices.Seen, process_index: int, process_count: int
) -> tuple[list[str], Shaped[np.ndarray, "n"]]:
    """Those captions, each once and by length, that this process has to encode; now seen."""
    digests, first = np.unique(rows.digests(part), return_index=True)
    first_words = np.frombuffer(digests.tobytes(), ">u8")[::2]
    wanted = ~seen.has(digests) & (first_words % process_count == process_index)
    seen.add(digests[wanted])
    # By length: a batch then holds little padding.
    order = sorted(
        zip((part[i] for i in first[wanted]), digests[wanted], strict=True),
        key=lambda pair: (len(pair[0]), pair[1]),
    )
    return [caption for caption, _ in order], np.array([digest for _, digest in order], "S16")


def _encode(encoder: TextEncoder, captions: list[str]) -> Iterator[np.ndarray]:
    """The embeddings [l d] of each, without padding."""
    embedded, mask = (np.asarray(x) for x in encoder.encode(captions))
    for row, length in zip(embedded, mask.sum(1), strict=True):
        yield row[:length]
