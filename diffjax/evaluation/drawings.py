"""All drawings of the emoji data set, among which the nearest to a sample is looked for."""

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from diffjax.data import transforms
from diffjax.data.emoji import splits
from diffjax.data.record import captions_of, image_of
from diffjax.data.sources.tfds import open_source

# Judges look at 32 px or less, so larger drawings would only take memory.
JUDGED_PX = 64


@dataclass(frozen=True)
class Drawings:
    """The drawings, sorted by name, with the first caption and the split of each.

    plain: their last captions, which name no style.
    """

    images: UInt8[np.ndarray, "n s s 3"]
    names: list[str]
    captions: list[str]
    splits: list[str]
    plain: list[str]


@functools.cache
def drawings(size_px: int) -> Drawings:
    """All drawings at a size."""
    rows = []
    for split in splits.SPLITS:
        source = open_source(f"emoji/{size_px}", split)
        for index in range(len(source)):
            record = source[index]
            picture = transforms.decode(image_of(record))
            first, *_, last = captions_of(record)
            rows.append((str(record["name"]), first, split, last, picture))
    rows.sort(key=lambda row: row[:2])
    names, captions, found, plain, images = map(list, zip(*rows, strict=True))
    return Drawings(np.stack(images), names, captions, found, plain)


def chosen(every: Drawings, split: str, count: int) -> list[int]:
    """Up to `count` drawings of a split, which are the same on every machine."""
    members = [i for i, have in enumerate(every.splits) if have == split]
    key = lambda i: hashlib.sha256(every.captions[i].encode()).digest()  # noqa: E731
    return sorted(members, key=key)[:count]
