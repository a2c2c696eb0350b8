"""Goes through a data set and says what is in it: sizes, captions, duplicates, what is broken."""

import collections
import dataclasses
import functools
import hashlib
import io
import statistics
from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from diffjax.core import pools
from diffjax.core.json_types import JsonObject
from diffjax.data.broken import Skipped, skipped_of
from diffjax.data.record import BadRecord, RecordSource, captions_of, image_of, name_at
from diffjax.data.transforms import decode

CHUNK = 32  # records handed to a process at a time


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was seen of a record that can be used. content: a hash of the picture's bytes."""

    name: str
    width_px: int
    height_px: int
    format: str
    captions: tuple[str, ...]
    label: int | None
    content: bytes


@dataclasses.dataclass(frozen=True)
class Report:
    """A data set as it was found; `records` of the `total` were looked at."""

    source: str
    total: int
    records: int
    sizes: tuple[tuple[int, int], ...]
    formats: dict[str, int]
    captions: tuple[tuple[str, ...], ...]
    labels: dict[int, int]
    classes: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]
    broken: tuple[Skipped, ...]

    def lines(self, tokens: Callable[[str], int] | None = None, max_tokens: int = 0) -> list[str]:
        """The report for a person; tokens: the length of a caption for the encoder."""
        looked = "" if self.records == self.total else f", {self.records:,} looked at"
        good = self.records - len(self.broken)
        found = [
            f"{self.source}: {self.total:,} records{looked}",
            f"  pictures    {good:,} can be used, {len(self.broken):,} cannot",
        ]
        if good:
            found += [
                f"  sizes       {_sizes(self.sizes)}",
                f"  formats     {_counts(self.formats)}",
                f"  captions    {self._captions(tokens, max_tokens)}",
                f"  classes     {self._classes()}",
                f"  duplicates  {self._duplicates()}",
            ]
        return found

    def as_json(self) -> JsonObject:
        """The report for a program."""
        with_one = [texts for texts in self.captions if any(texts)]
        return {
            "source": self.source,
            "records": self.total,
            "looked_at": self.records,
            "usable": self.records - len(self.broken),
            "broken": [{**skipped._asdict()} for skipped in self.broken],
            "formats": dict(self.formats),
            "with_captions": len(with_one),
            "labels": {str(label): count for label, count in self.labels.items()},
            "duplicates": [list(names) for names in self.duplicates],
        }

    def _captions(self, tokens: Callable[[str], int] | None, max_tokens: int) -> str:
        texts = [text for each in self.captions for text in each if text]
        without = sum(not any(each) for each in self.captions)
        if not texts:
            return "none: a model of these pictures is told no text"
        several = max(len(each) for each in self.captions)
        said = f"{len(self.captions) - without:,} with, {without:,} without"
        said += f"; up to {several} each" if several > 1 else ""
        lengths = sorted(len(text) for text in texts)
        said += (
            f"; {lengths[len(lengths) // 2]:,} characters in the middle, {lengths[-1]:,} at most"
        )
        if tokens is not None:
            over = sum(tokens(text) > max_tokens for text in set(texts))
            said += (
                f"; {over:,} of {len(set(texts)):,} different ones have over {max_tokens} tokens"
            )
            said += " and lose their end" * bool(over)
        return said

    def _classes(self) -> str:
        if not self.labels:
            return "none"
        counts = {
            (self.classes[label] if 0 <= label < len(self.classes) else str(label)): count
            for label, count in sorted(self.labels.items())
        }
        return f"{len(counts)}: {_counts(counts)}"

    def _duplicates(self) -> str:
        if not self.duplicates:
            return "none"
        more = sum(len(names) - 1 for names in self.duplicates)
        first = ", ".join(self.duplicates[0][:3])
        return f"{more:,} pictures stand more than once, such as {first}"


def report(
    source: RecordSource,
    *,
    limit: int = 0,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Look at all records, or at `limit` of them, spread evenly; in `workers` processes."""
    count = min(limit or len(source), len(source))
    indices = [i * len(source) // count for i in range(count)]
    good, broken = list[Seen](), list[Skipped]()
    for done, seen in enumerate(_looked_at(source, indices, workers), 1):
        good.append(seen) if isinstance(seen, Seen) else broken.append(seen)
        if progress:
            progress(done, count)
    same = collections.defaultdict(list)
    for seen in good:
        same[seen.content].append(seen.name)
    return Report(
        source=repr(source),
        total=len(source),
        records=count,
        sizes=tuple((seen.width_px, seen.height_px) for seen in good),
        formats=dict(collections.Counter(seen.format for seen in good).most_common()),
        captions=tuple(seen.captions for seen in good),
        labels=dict(collections.Counter(x.label for x in good if x.label is not None)),
        classes=getattr(source, "classes", ()),
        duplicates=tuple(tuple(names) for names in same.values() if len(names) > 1),
        broken=tuple(broken),
    )


def look(source: RecordSource, index: int) -> Seen | Skipped:
    """What a record is, or why it cannot be used."""
    name: object = name_at(source, index)
    try:
        record = source[index]
        name = record.get("name", "") or name
        data = image_of(record)
        image = decode(data)
        label = record.get("label")
        with Image.open(io.BytesIO(data)) as opened:
            kind = opened.format or "?"
        return Seen(
            name=str(name),
            width_px=image.shape[1],
            height_px=image.shape[0],
            format=kind,
            captions=captions_of(record),
            label=None if label is None else int(label),  # type: ignore[call-overload]
            content=hashlib.sha256(data).digest()[:16],
        )
    except BadRecord as error:
        return skipped_of(index, name, error)


def _looked_at(
    source: RecordSource, indices: Sequence[int], workers: int
) -> Iterator[Seen | Skipped]:
    if not workers:
        yield from (look(source, index) for index in indices)
        return
    with pools.pool(workers) as processes:
        yield from processes.map(functools.partial(look, source), indices, chunksize=CHUNK)


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    small, large = min(sizes, key=_area), max(sizes, key=_area)
    middle = statistics.median(min(size) for size in sizes)
    square = sum(width == height for width, height in sizes)
    return (
        f"{small[0]} x {small[1]} to {large[0]} x {large[1]} px, the shorter side {middle:g} in "
        f"the middle; {square:,} are squares"
    )


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _counts(counts: dict[str, int], shown: int = 12) -> str:
    first = [f"{name} {count:,}" for name, count in list(counts.items())[:shown]]
    return ", ".join(first) + (f" and {len(counts) - shown} more" if len(counts) > shown else "")
