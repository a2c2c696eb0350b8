"""Writes a data set as ArrayRecord, as tensorflow-datasets lays it out: found by index, at once.

A shard is written under another name and renamed when it is whole, so a run that was cut off goes
on where it was, and any number of processes make the same files.
"""

import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from diffjax.core import pools
from diffjax.core.errors import StorageError
from diffjax.core.files import publish, read_json, storing, write_whole
from diffjax.data.broken import Skipped, skipped_of
from diffjax.data.record import BadRecord, RecordSource, captions_of, identity_of, image_of, name_at
from diffjax.data.transforms import encode_quick, load, square
from diffjax.images.colour import WHITE

RECORDS_PER_SHARD = 1024
LOOKED_AT = 32  # records that may tell whether there are classes
PLAN, LEFT_OUT = "prepare.json", "left_out.jsonl"
# Each record by itself; pictures are packed already, and unpacking them again would take longer
# than to read them.
WRITING = "group_size:1,uncompressed"
NAME = "pictures"  # of the data set, in the names of its files


@dataclass(frozen=True)
class Look:
    """How pictures are stored. size_px: squares of this side; 0: the bytes as they are."""

    size_px: int = 0
    aspect: str = "centre"
    ground: str = WHITE


@dataclass(frozen=True)
class Shard:
    """What became of one shard: how many records it holds, their bytes, and who was left out.

    labels: one more than the highest class in it.
    """

    records: int
    num_bytes: int
    left_out: tuple[Skipped, ...]
    labels: int = 0


def prepare(
    splits: dict[str, RecordSource],
    out: Path,
    look: Look,
    *,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[Shard]]:
    """Write the records of every split below `out`; what is there already is kept.

    Returns the shards of each split, in order.

    Raises:
      StorageError: there is no room, or the folder holds another data set.
    """
    with storing(out):
        out.mkdir(parents=True, exist_ok=True)
    _same_plan(splits, out, look)
    classes = next((tuple(getattr(s, "classes", ())) for s in splits.values()), ())
    labelled = bool(classes) or any(map(_has_labels, splits.values()))
    todo = [
        (split, shard)
        for split, source in splits.items()
        for shard in range(-(-len(source) // RECORDS_PER_SHARD))
    ]
    counts = {split: -(-len(source) // RECORDS_PER_SHARD) for split, source in splits.items()}
    made: dict[str, list[Shard]] = {split: [] for split in splits}
    total, done = sum(map(len, splits.values())), 0
    write = functools.partial(_shard, splits, out, look, labelled, counts)
    for (split, _), shard in zip(todo, _written(write, todo, workers), strict=True):
        made[split].append(shard)
        done += shard.records + len(shard.left_out)
        if progress:
            progress(done, total)
    left_out = [
        skipped for shards in made.values() for shard in shards for skipped in shard.left_out
    ]
    lines = "".join(json.dumps(skipped._asdict()) + "\n" for skipped in left_out)
    write_whole(out / LEFT_OUT, lines.encode())
    if labelled and not classes:  # nobody has named them
        highest = max((shard.labels for shards in made.values() for shard in shards), default=0)
        classes = tuple(map(str, range(highest)))
    _describe(out, made, classes)
    return made


def features_of(classes: Sequence[str]) -> tfds.features.FeaturesDict:
    """What a prepared record holds; `label` is stored as a number, -1 for none."""
    fields: dict[str, tfds.features.FeatureConnector] = {
        "image": tfds.features.Image(),
        "captions": tfds.features.Sequence(tfds.features.Text()),
        "name": tfds.features.Text(),
    }
    if classes:
        fields["label"] = tfds.features.ClassLabel(names=list(classes))
    return tfds.features.FeaturesDict(fields)


def _shard(
    splits: dict[str, RecordSource],
    out: Path,
    look: Look,
    labelled: bool,
    counts: dict[str, int],
    what: tuple[str, int],
) -> Shard:
    """Write one shard, unless it is there."""
    split, number = what
    path = out / f"{NAME}-{split}.array_record-{number:05d}-of-{counts[split]:05d}"
    about = path.with_name(f".{path.name}.json")
    if path.exists() and about.exists():
        return _from_json(about)
    source = splits[split]
    first = number * RECORDS_PER_SHARD
    features = _stored(labelled)
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    left_out, written, num_bytes, labels = list[Skipped](), 0, 0, 0
    with storing(path):
        writer = array_record_module.ArrayRecordWriter(str(temporary), WRITING)
        try:
            for index in range(first, min(first + RECORDS_PER_SHARD, len(source))):
                try:
                    example = _example(source, index, look, labelled)
                except BadRecord as error:
                    left_out.append(skipped_of(index, name_at(source, index), error))
                    continue
                data = serializer.serialize_example(features.encode_example(example))
                writer.write(data)
                written, num_bytes = written + 1, num_bytes + len(data)
                labels = max(labels, int(example.get("label", -1)) + 1)  # type: ignore[call-overload]
        finally:
            writer.close()
        shard = Shard(written, num_bytes, tuple(left_out), labels)
        publish(temporary, path)
    write_whole(about, json.dumps(asdict(shard)).encode())
    return shard


def _example(source: RecordSource, index: int, look: Look, labelled: bool) -> dict[str, object]:
    record = source[index]
    data = image_of(record)
    loaded = load(data, look.ground)  # also where the bytes are kept: they must be whole
    if look.size_px:
        data = encode_quick(square(loaded, look.size_px, look.aspect, ground=look.ground))
    example: dict[str, object] = {
        "image": data,
        "captions": [text for text in captions_of(record) if text],
        "name": str(record.get("name", "")),
    }
    return {**example, "label": record.get("label", -1)} if labelled else example


def _stored(labelled: bool) -> tfds.features.FeaturesDict:
    """How records are written: as `features_of` has them, with any number for a class."""
    fields = dict(features_of(()))
    return tfds.features.FeaturesDict(
        fields | {"label": tfds.features.Scalar(np.int64)} if labelled else fields
    )


def _has_labels(source: RecordSource) -> bool:
    """Whether one of the first records has a class."""
    for index in range(min(LOOKED_AT, len(source))):
        try:
            if "label" in source[index]:
                return True
        except BadRecord:
            continue
    return False


def _written(
    write: Callable[[tuple[str, int]], Shard], todo: Sequence[tuple[str, int]], workers: int
) -> Iterator[Shard]:
    if not workers:
        yield from map(write, todo)
        return
    with pools.pool(workers) as processes:
        yield from processes.map(write, todo)


def _same_plan(splits: dict[str, RecordSource], out: Path, look: Look) -> None:
    """Refuse to go on in the folder of another data set."""
    plan = {
        "splits": {split: [len(s), identity_of(s)] for split, s in splits.items()},
        "look": asdict(look),
        "records_per_shard": RECORDS_PER_SHARD,
    }
    wanted = json.loads(json.dumps(plan))
    try:
        found = read_json(out / PLAN, "name another folder")
    except FileNotFoundError:
        if any(out.iterdir()):
            raise StorageError(f"{out}: is not empty; name another folder") from None
        write_whole(out / PLAN, json.dumps(plan, indent=2).encode())
        return
    if found != wanted:
        changed = [name for name in wanted if found.get(name) != wanted[name]]
        raise StorageError(
            f"{out}: was begun with other data or options ({', '.join(changed)}); "
            "name another folder"
        )


def _describe(out: Path, made: dict[str, list[Shard]], classes: Sequence[str]) -> None:
    """The two files by which tensorflow-datasets knows the folder."""
    template = tfds.core.ShardedFileTemplate(
        data_dir=out, dataset_name=NAME, filetype_suffix="array_record"
    )
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=NAME, version=tfds.core.Version("1.0.0"), data_dir=str(out), module_name=""
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features_of(classes))
    info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard.records for shard in shards],
            num_bytes=sum(shard.num_bytes for shard in shards),
            filename_template=template.replace(split=split),
        )
        for split, shards in made.items()
    ]
    info.set_splits(tfds.core.SplitDict(splits))
    with storing(out):
        info.write_to_directory(out)


def _from_json(path: Path) -> Shard:
    found = read_json(path, "delete it, and the shard is written anew")
    left_out = tuple(Skipped(x["record"], x["name"], x["reason"]) for x in found["left_out"])  # type: ignore[index, union-attr, call-overload, arg-type]
    numbers = [int(found.get(name, 0)) for name in ("records", "num_bytes", "labels")]  # type: ignore[arg-type]
    return Shard(numbers[0], numbers[1], left_out, numbers[2])
