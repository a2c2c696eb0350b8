"""Makes a report on pictures that are there already, such as those in a folder."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from diffjax.build.reports.loaded import Asked
from diffjax.build.reports.sets import opening, said
from diffjax.core.errors import ConfigError, InputError, require
from diffjax.core.json_types import JsonObject
from diffjax.data import transforms
from diffjax.data.broken import BrokenRecord
from diffjax.data.record import BadRecord, RecordSource, captions_at, image_of
from diffjax.data.sources.open import KINDS, open_source
from diffjax.evaluation import sets, texts
from diffjax.evaluation.collect import Pictures
from diffjax.evaluation.examples import Spread
from diffjax.evaluation.metrics import statistics
from diffjax.evaluation.sets import Found, Set

FLAG = "WHERE"


def is_source(where: Path) -> bool:
    """Whether the text is that of a source of pictures, such as folder:DIR, and not of a stage."""
    kind, colon, _ = str(where).partition(":")
    return bool(colon) and kind in KINDS and not where.exists()


def check_flags(flags: argparse.Namespace) -> None:
    """Refuses flags that are of stages, and flags that leave nothing to compare with.

    Raises:
      ConfigError: there is one.
    """
    why = "the pictures are there already: leave it out"
    require(flags.seed is None, "--seed", flags.seed, why)
    require(not flags.sweep, "--sweep", ",".join(flags.sweep), why)
    require(flags.ema is None, "--ema", flags.ema, why)
    require(flags.parts is None, "--parts", flags.parts, why)
    require(flags.classifier is None, "--classifier", str(flags.classifier), why)
    there = flags.against or flags.clip or flags.statistics
    missing = "name the real pictures by --against, a CLIP by --clip, or a file by --statistics"
    require(bool(there), FLAG, str(flags.where[0]), missing)
    against = flags.against is not None
    require(against or not flags.any_count, "--any-count", True, "is of --against: name it too")
    require(against or flags.split is None, "--split", flags.split, "is of --against: name it too")


def report(source: str, asked: Asked, mesh: Mesh) -> JsonObject:
    """The numbers of the pictures of a source, as of a set that stages made.

    Raises:
      ConfigError: there is no such source, or it has fewer pictures than were asked for.
      InputError: the pictures have different sizes or show nothing, or statistics are unlike.
    """
    try:
        whole = open_source(source)
    except ValueError as error:
        raise ConfigError(FLAG, source, str(error)) from None
    allowed = f"{source} has {len(whole)} pictures: lower it, or add the rest"
    require(asked.num is None or asked.num <= len(whole), "--num", asked.num, allowed)
    records = Spread(whole, asked.num or len(whole))
    judges = opening.judges_of(asked, mesh)
    side = _decoded(records, 0).shape
    real = _real(asked, judges, side, len(records))
    made = judges.look("made", as_they_are(records), len(records), with_clip=True)
    found = Found()
    if real is not None:
        extractor = judges.extractor
        found |= sets.compare(
            made.whole, real, extractor.label, classes=extractor.classes, any_count=asked.any_count
        )
    if judges.clip is not None and made.clip is not None:
        captions = tuple(next(iter(captions_at(records, i)), "") for i in range(len(records)))
        text = judges.clip.of_captions(captions) if any(captions) else None
        found |= texts.fit(made.clip, text, captions)
    if asked.statistics is not None:
        statistics.save(asked.statistics, made.whole.statistics)
    result: JsonObject = {
        "data": source,
        "split": asked.split,
        "examples": len(records),
        "against": asked.against,
        **said.judged_by(judges, real, made.whole.statistics),
        "numbers": dict(found.numbers),
        "left_out": dict(found.left_out),
    }
    said.say(result)
    return result


def as_they_are(records: RecordSource) -> Iterator[Pictures]:
    """The pictures in the size that they have, a block at a time.

    Raises:
      InputError: one cannot be read, or their sizes differ; names both pictures.
    """
    first = _decoded(records, 0)
    for start in range(0, len(records), opening.BLOCK):
        block = []
        for index in range(start, min(start + opening.BLOCK, len(records))):
            picture = _decoded(records, index)
            if picture.shape != first.shape:
                raise InputError(
                    f"{_name(records, index)} is {_size(picture.shape)}, {_name(records, 0)} is "
                    f"{_size(first.shape)}: pictures of a set must have one size"
                )
            block.append(picture)
        yield np.stack(block)


def _real(asked: Asked, judges: opening.Judges, side: tuple[int, ...], count: int) -> Set | None:
    """The real pictures, if --against names some.

    Raises:
      ConfigError, InputError: see `opening.of_source` and `opening.of_file`.
    """
    if asked.against is None:
        return None
    if opening.is_statistics(asked.against):
        return opening.of_file(asked.against, judges.extractor, count, asked.any_count)
    if side[0] != side[1]:
        raise InputError(
            f"the pictures are {_size(side)}, and sources are read as squares: want squares, or a "
            "file of statistics"
        )
    return opening.of_source(asked, side[0], judges, count)


def _decoded(records: RecordSource, index: int) -> np.ndarray:
    try:
        return transforms.decode(image_of(records[index]))
    except (BrokenRecord, BadRecord) as error:
        raise InputError(f"{_name(records, index)}: {error}") from None


def _name(records: RecordSource, index: int) -> str:
    return str(records[index].get("name") or f"picture {index}")


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} px"
