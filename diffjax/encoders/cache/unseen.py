"""Finds the captions that a cache lacks, without keeping all captions in memory."""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Shaped

from diffjax.encoders.cache import index as indices
from diffjax.encoders.cache import records


def unseen(captions: Iterable[str], known: Shaped[np.ndarray, "n"], window: int) -> Iterator[str]:
    """The captions whose digests are not known, each once, in the order they come."""
    seen = indices.DigestSet(known)
    for part in windows(captions, window):
        digests, first = np.unique(records.caption_digests(part), return_index=True)
        fresh = ~seen.contains(digests)
        seen.add(digests[fresh])
        yield from (part[i] for i in np.sort(first[fresh]))


def windows(captions: Iterable[str], size: int) -> Iterator[list[str]]:
    """The captions in lists of `size`; the last may be shorter."""
    captions = iter(captions)
    while part := list(itertools.islice(captions, size)):
        yield part


def fresh(
    part: list[str], seen: indices.DigestSet, process_index: int, process_count: int
) -> tuple[list[str], Shaped[np.ndarray, "n"]]:
    """(captions that this process must encode, sorted by length, their digests); adds to `seen`."""
    digests, first = np.unique(records.caption_digests(part), return_index=True)
    first_words = np.frombuffer(digests.tobytes(), ">u8")[::2]
    wanted = ~seen.contains(digests) & (first_words % process_count == process_index)
    seen.add(digests[wanted])
    # Sorted by length, so that batches need little padding.
    order = sorted(
        zip((part[i] for i in first[wanted]), digests[wanted], strict=True),
        key=lambda pair: (len(pair[0]), pair[1]),
    )
    return [caption for caption, _ in order], np.array([digest for _, digest in order], "S16")
