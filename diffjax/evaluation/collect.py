"""Goes over the pictures of a set once, and keeps of them what numbers of sets are made of."""

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, UInt8

from diffjax.core.errors import InputError
from diffjax.encoders.clip.encoder import Clip
from diffjax.evaluation.extractors.extractor import BATCH, Extractor, features
from diffjax.evaluation.metrics import drift, statistics
from diffjax.evaluation.metrics.features import Features, check_finite
from diffjax.evaluation.metrics.moments import moments_of
from diffjax.evaluation.metrics.statistics import Statistics
from diffjax.evaluation.sets import Set
from diffjax.images import pixels

Pictures: TypeAlias = UInt8[np.ndarray, "_ _ _ 3"]


class Collected(NamedTuple):
    """What is kept of a set. clip: the vectors of a CLIP; None if there is none."""

    whole: Set
    clip: Features | None


def collect(
    name: str,
    blocks: Iterable[Pictures],
    extractor: Extractor,
    *,
    clip: Clip | None = None,
    asked: int | None = None,
    mesh: Mesh | None = None,
) -> Collected:
    """The features, statistics and colours of all pictures; those of one block are in memory.

    name: of the set, for messages. asked: how many pictures there must be.

    Raises:
      InputError: there are fewer pictures than asked, or fewer than two; their sizes differ; each
        picture has a single colour, or all are equal; or a feature is not finite.
    """
    first: Pictures | None = None
    same = flat = True
    found, vectors, colours, hashed = [], [], drift.NO_COLOURS, statistics.NO_PICTURES
    for block in blocks:
        first = block[:1] if first is None else first
        if block.shape[1:] != first.shape[1:]:
            sides = [f"{one.shape[2]} x {one.shape[1]} px" for one in (first, block)]
            raise InputError(f"{name}: has pictures of {sides[0]} and of {sides[1]}: want one size")
        same = same and bool((block == first).all())
        flat = flat and bool((block == block[:, :1, :1]).all())
        found.append(features(extractor, block, batch=min(BATCH, asked or BATCH), mesh=mesh))
        colours += drift.colours_of(block)
        hashed = statistics.hash_together(hashed, statistics.hash_of(block))
        if clip is not None:
            vectors.append(clip.of_pictures(block))
    count = sum(map(len, found))
    if asked is not None and count < asked:
        raise InputError(f"{name}: {count} pictures, {asked} were asked for: add the rest")
    if count < 2:
        raise InputError(f"{name}: {count} pictures, want at least 2: add more")
    _check_shown(name, count, same, flat)
    rows = np.concatenate(found)
    whole = Statistics(extractor.name, extractor.resize, hashed, moments_of(rows))
    return Collected(
        Set(whole, rows, colours), np.concatenate(vectors) if clip is not None else None
    )


def to_bytes(name: str, made: Float[jax.Array | np.ndarray, "b h w 3"]) -> Pictures:
    """Pictures in [-1, 1] as bytes.

    Raises:
      InputError: a number is NaN or infinite, which bytes cannot show.
    """
    check_finite(name, np.asarray(made))
    return np.asarray(pixels.to_uint8(jax.numpy.asarray(made)))


def _check_shown(name: str, count: int, same: bool, flat: bool) -> None:
    """Refuses a set that shows nothing.

    Raises:
      InputError: all pictures are equal, or each is of a single colour.
    """
    if same:
        raise InputError(f"{name}: all {count} pictures are the same: nothing can be compared")
    if flat:
        raise InputError(
            f"{name}: each of the {count} pictures has a single colour: look at them, and at the "
            "network that made them"
        )
