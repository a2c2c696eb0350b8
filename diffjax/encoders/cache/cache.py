"""A cache of caption embeddings on disk: computed once, then looked up by the caption.

What an autoencoder makes of pictures lies in such caches too: a key that names a picture takes the
place of the caption (see autoencoder/latents.py).

A cache is a directory (see shards.py and index.py). It has a header that names the encoder,
ArrayRecord shards with the embeddings of each caption, without padding, and an index by digest.
Neither writing nor reading keeps all captions or embeddings in memory.
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
from diffjax.data.broken import BrokenRecord
from diffjax.encoders.cache import index as indices
from diffjax.encoders.cache import records, shards, unseen
from diffjax.encoders.cache.owner import Encoder, default_folder, header_of, users_folder
from diffjax.encoders.cache.records import FLOAT16, STORAGES, Damaged
from diffjax.encoders.cache.shards import Header, Shards, StorageError

__all__ = [
    "FLOAT16", "STORAGES", "Damaged", "Embeddings", "Encoder", "Header", "MissingCaption",
    "StorageError", "default_folder", "ensure", "extend", "header_of", "null_text", "open_cache",
    "users_folder",
]  # fmt: skip

SHARD_BYTES = 256 << 20
SHARD_SECONDS = 600  # a killed process loses at most the work of this time
WINDOW = 16_384  # captions are sorted by length, and encoded, in groups of this size


class MissingCaption(BadData, KeyError):
    """The cache does not have a caption. Exit code 2."""

    def __str__(self) -> str:
        """The message without the quotes that KeyError puts around it."""
        return str(self.args[0])


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """A cache that is open for reading. Embeddings are read when needed; it pickles as its path."""

    path: Path
    header: Header
    index: indices.Index = dataclasses.field(repr=False)
    shards: Shards = dataclasses.field(repr=False, compare=False)

    def __getitem__(self, caption: str) -> Shaped[np.ndarray, "l d"]:
        """The embeddings of a caption, without padding: in bfloat16, or in float16 if stored so.

        Raises:
          MissingCaption: the cache does not have the caption.
          Damaged: its bytes differ from those written; names the shard and the remedy.
        """
        location = self.index.find(caption)
        if location is None:
            raise MissingCaption(
                f"{self.path}: no caption {caption!r} among its {len(self)}; "
                f"python -m diffjax.embed --out {self.path} adds captions"
            )
        found, row = self._read(*location)
        if found != caption:
            raise shards.damage_error(self.path / location[0], location[1], "it is another caption")
        return row

    def embed(self, caption: str) -> Shaped[np.ndarray, "l d"]:
        """The embeddings of a caption as training uses them; for "" those of the null text.

        The null text is zeros, seen at one position (tasks/text.py: null_text), and not what the
        encoder computes for an empty text. It needs no place in the cache.

        Raises:
          MissingCaption: the cache does not have the caption.
          BrokenRecord: the record in the cache is damaged, so the one in the data cannot be used.
        """
        if not caption:
            return null_text(self.header.width)
        try:
            return self[caption]
        except Damaged as error:
            raise BrokenRecord(str(error)) from None

    def batch(
        self, captions: Sequence[str], length: int
    ) -> tuple[Shaped[np.ndarray, "b l d"], Bool[np.ndarray, "b l"]]:
        """(embeddings, mask) of the captions, padded to `length` tokens.

        Raises:
          ValueError: a caption is longer. MissingCaption and Damaged as for one caption.
        """
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
        """Whether the cache has the caption."""
        return isinstance(caption, str) and self.index.find(caption) is not None

    def __len__(self) -> int:
        """The number of captions."""
        return len(self.index.digests)

    def __iter__(self) -> Iterator[str]:
        """The captions, shard by shard; this reads and checks every record."""
        for place in np.sort(self.index.places):
            yield self._read(self.index.shards[int(place) >> 32], int(place) & 0xFFFFFFFF)[0]

    def _read(self, shard: str, position: int) -> tuple[str, np.ndarray]:
        record = self.shards.read(shard, position)
        try:
            return records.unpack(record, self.header.width, self.header.storage)
        except ValueError as error:
            raise shards.damage_error(self.path / shard, position, error) from None

    def __reduce__(self) -> tuple[Callable[[Path], "Embeddings"], tuple[Path]]:
        """Pickle only the path, so that each worker opens the files itself."""
        return open_cache, (self.path,)


def null_text(width: int) -> Shaped[np.ndarray, "1 d"]:
    """The embedding of the null text, for a blank or missing caption: zeros at one position."""
    return np.zeros((1, width), ml_dtypes.bfloat16)


def open_cache(path: str | os.PathLike, encoder: Encoder | None = None) -> Embeddings:
    """Open the cache at `path`.

    Raises:
      ValueError: there is no cache, or it was made by another encoder, if one is given.
    """
    path = Path(path).expanduser()
    header = shards.read_header(path)
    if encoder is not None:
        shards.check_header(path, header, header_of(encoder, header.storage))
    return Embeddings(path, header, indices.load(path, header), Shards(path))


def extend(
    path: str | os.PathLike,
    encoder: Encoder,
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
    """Encode the captions that the cache at `path` lacks; returns how many were encoded.

    The cache is made if it does not exist. Each of `process_count` processes encodes its share of
    the captions, chosen by digest; all write into one directory. After each batch,
    `progress(done, encoded)` is called with the number of captions read and of those encoded. When
    `stop()` is true, the current shard is finished and the function returns. A killed process
    loses only its unfinished shard.

    Raises:
      ValueError: the directory belongs to another encoder, or a number is not allowed.
      StorageError: the disk is full; finished shards stay, and the same call continues later.
      Damaged: the list of captions of a shard cannot be read.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}, want at least 1")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index={process_index}, want 0 to {process_count - 1}")
    folder, header = Path(path), header_of(encoder, storage)
    owner = f"process-{process_index}-of-{process_count}"
    with shards.locked(folder, owner, header):
        seen = indices.DigestSet(indices.load(folder, header).digests)
        done = encoded = 0
        shard: shards.ShardWriter | None = None
        try:
            for part in unseen.windows(captions, window):
                fresh, digests = unseen.fresh(part, seen, process_index, process_count)
                for start in range(0, len(fresh), batch_size):
                    end = min(start + batch_size, len(fresh))
                    if shard is None:
                        shard, opened = shards.ShardWriter(folder, header, owner), time.monotonic()
                    for i, row in zip(
                        range(start, end), _encode(encoder, fresh[start:end]), strict=True
                    ):
                        shard.add(
                            digests[i : i + 1].tobytes(), records.pack(fresh[i], row, storage)
                        )
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
    encoder: Encoder,
    captions: Iterable[str],
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
    storage: str = STORAGES[0],
) -> Embeddings:
    """The cache at `path`, after encoding those of `captions` that it lacks.

    The captions are read once, as they come, and are not kept. `progress(done, missing)` gets the
    number of captions encoded, and of those found to be lacking so far. Raises as `extend` does.
    """
    found = 0

    def counted(missing: Iterable[str]) -> Iterator[str]:
        nonlocal found
        for caption in missing:
            found += 1
            yield caption

    known = open_cache(path, encoder) if (Path(path) / shards.HEADER).exists() else None
    digests = known.index.digests if known else np.zeros(0, "S16")
    missing = counted(unseen.unseen(captions, digests, WINDOW))
    first = next(missing, None)
    if known is not None and first is None:
        return known
    logging.info("%s: captions to encode", path)
    rest = () if first is None else itertools.chain([first], missing)

    def report(done: int, encoded: int) -> None:
        if progress:
            progress(done, found)

    extend(path, encoder, rest, storage=storage, batch_size=batch_size, progress=report)
    return open_cache(path, encoder)


def _encode(encoder: Encoder, captions: list[str]) -> Iterator[np.ndarray]:
    """The embeddings [l d] of each caption, without padding."""
    embedded, mask = (np.asarray(x) for x in encoder.encode(captions))
    for row, length in zip(embedded, mask.sum(1), strict=True):
        yield row[:length]
