"""Moments of a set of pictures, with everything that their values depend on.

A distance to statistics means something only if both sides had the same extractor, the same resize
and as many pictures. Statistics say what they had, and unlike ones refuse to be compared.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from diffjax.core import tensorfile
from diffjax.core.errors import InputError, StorageError
from diffjax.core.files import storing
from diffjax.evaluation import fid
from diffjax.evaluation.metrics.features import Others
from diffjax.evaluation.metrics.moments import Moments, merged, moments_of

KIND, FORMAT = "diffjax statistics", "1"
HEX = 64
NO_PICTURES = "0" * HEX  # the hash of none


@dataclass(frozen=True)
class Statistics:
    """The moments of the features of pictures.

    extractor: the network with its layer and weights. resize: how pictures came to its input size.
    pictures: `hash_of` the pictures, which does not depend on their order.
    """

    extractor: str
    resize: str
    pictures: str
    moments: Moments

    @property
    def count(self) -> int:
        """The number of pictures."""
        return self.moments.count


def statistics_of(
    pictures: UInt8[np.ndarray, "n h w c"], features: Others, *, extractor: str, resize: str
) -> Statistics:
    """The statistics of pictures and their features, row for row.

    Raises:
      InputError: there are not as many of both, or a feature is not finite.
    """
    if len(pictures) != len(features):
        raise InputError(f"{len(pictures)} pictures, {len(features)} rows of features: want equal")
    return Statistics(extractor, resize, hash_of(pictures), moments_of(features))


def hash_of(pictures: UInt8[np.ndarray, "n h w c"]) -> str:
    """The sum, modulo 2^256, of the sha256 of each picture's shape and bytes, in hex.

    So the hash of two sets together is the sum of their hashes, in any order.
    """
    total = 0
    for picture in pictures:
        one = hashlib.sha256(f"{picture.shape}\n".encode())
        one.update(np.ascontiguousarray(picture).data)
        total += int.from_bytes(one.digest(), "big")
    return _hex(total)


def hash_together(a: str, b: str) -> str:
    """The hash of two sets of pictures together, from their hashes."""
    return _hex(int(a, 16) + int(b, 16))


def together(a: Statistics, b: Statistics) -> Statistics:
    """The statistics of both sets of pictures.

    Raises:
      InputError: the extractors or the resizes differ.
    """
    check_alike(a, b, any_count=True)
    pictures = hash_together(a.pictures, b.pictures)
    return dataclasses.replace(a, pictures=pictures, moments=merged(a.moments, b.moments))


def distance(made: Statistics, real: Statistics, *, any_count: bool = False) -> float:
    """The Frechet distance between like statistics; its name depends on the extractor.

    any_count: allows unequal numbers of pictures; the bias of the distance depends on both.

    Raises:
      InputError: they are unlike, or what `fid.distance` refuses.
    """
    check_alike(made, real, any_count=any_count)
    return fid.distance(made.moments, real.moments)


def check_alike(a: Statistics, b: Statistics, *, any_count: bool = False) -> None:
    """Refuses to compare statistics that were made in different ways.

    Raises:
      InputError: the extractor, the resize or the count differs. The message has both values.
    """
    told: list[Callable[[Statistics], str]] = [
        lambda one: f"extractor {one.extractor}",
        lambda one: f"resize {one.resize}",
    ]
    if not any_count:
        told.append(lambda one: f"count {one.count}")
    for tell in told:
        if tell(a) != tell(b):
            raise InputError(
                f"statistics with {tell(a)} and with {tell(b)} cannot be compared: make both alike"
            )


def save(path: Path, statistics: Statistics) -> None:
    """Writes them as safetensors with a checksum.

    Raises:
      StorageError: the disk is full or fails.
    """
    metadata = {
        "kind": KIND,
        "format": FORMAT,
        "extractor": statistics.extractor,
        "resize": statistics.resize,
        "pictures": statistics.pictures,
        "count": str(statistics.count),
    }
    tensors = {"mean": statistics.moments.mean, "scatter": statistics.moments.scatter}
    with storing(path):
        tensorfile.write(path, tensors, metadata)


def load(path: Path) -> Statistics:
    """Reads what `save` wrote.

    Raises:
      InputError: there is no such file, or it holds something else.
      StorageError: the file is damaged.
    """
    try:
        metadata = tensorfile.verify(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: want one of statistics") from None
    except ValueError as error:
        raise StorageError(f"{error}; make the statistics again") from None
    kind, form = metadata.get("kind"), metadata.get("format")
    if (kind, form) != (KIND, FORMAT):
        raise InputError(f"{path}: holds {kind!r}, format {form!r}: want {KIND!r}, {FORMAT!r}")
    moments = Moments(
        int(metadata["count"]), tensorfile.read(path, "mean"), tensorfile.read(path, "scatter")
    )
    return Statistics(metadata["extractor"], metadata["resize"], metadata["pictures"], moments)


def _hex(number: int) -> str:
    return f"{number % (1 << 4 * HEX):0{HEX}x}"
