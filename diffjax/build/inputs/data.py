"""Makes the data of a run from its config: records, embeddings, batches, and previews."""

import json
from pathlib import Path

import jax
from ml_collections import ConfigDict

from diffjax.build.inputs import clip_columns, columns, moments, reading
from diffjax.build.inputs.embeddings import embeddings_of, of_known_captions
from diffjax.build.kinds import contrastive
from diffjax.core.errors import ConfigError, Ending, InputError, StorageError, require
from diffjax.core.files import read_json, set_aside, write_whole
from diffjax.core.json_types import JsonObject
from diffjax.data import pipeline, readers
from diffjax.data.broken import Broken
from diffjax.data.probe import probe
from diffjax.data.record import RecordSource, identity_of
from diffjax.devices import mesh as mesh_lib
from diffjax.devices import processes
from diffjax.encoders.t5 import TextEncoder
from diffjax.training.program import Training
from diffjax.training.run import Data

DATA, LEFT_OUT = "data.json", "left_out.jsonl"  # in the workdir
# The keys that say which data are meant.
ASKED_FOR = ("name", "split", "validation", "captions")


def open_data(
    config: ConfigDict, encoder: TextEncoder | None, training: Training, workdir: Path
) -> Data:
    """The batches of this process and what previews show; columns that lack are made on the way.

    Records of other people's files are looked at first, and those that are broken are listed in
    the workdir.

    Raises:
      ConfigError: no such data set, or other data than the run began with, or than another process
        reads; or the embeddings are another encoder's.
      BadData: too many records are broken.
      StorageError: there is no room for what has to be made.
    """
    records, known = records_of_all(config, workdir)
    warn_if_untold(config, records)
    broken = broken_of(config, records, workdir, look=not known)
    if processes.is_first():
        note_data(config, records, workdir)
    embed: readers.Embed | None = None
    if encoder is not None:
        embed = embeddings_of(config, records, encoder, _encoding_progress).embed
        if not config.data.get("embeddings", ""):
            embed = of_known_captions(embed)
    latents, vector_of = moments.cached(config, records), clip_columns.of_captions(config, records)
    rows = mesh_lib.rows_here(mesh_lib.batch_sharding(training.mesh), config.data.batch_size)
    batches = pipeline.train_iterator(
        records,
        columns.trained_on(config, embed, latents, vector_of),
        batch_size=config.data.batch_size,
        seed=config.seed,
        rows=rows,
        broken=broken,
        worker_count=config.data.workers,
    )
    shown = columns.shown_of(config, records, encoder, embed, vector_of)
    return Data(batches, shown, broken=broken)


def records_of_all(config: ConfigDict, workdir: Path) -> tuple[RecordSource, bool]:
    """The records, which all processes read, and whether the run in the workdir began with them.

    All processes call this once for a workdir. If one of them fails, all do, with a line each.

    Raises:
      ConfigError: no such data set, or other data than the run began with, or than another process
        reads.
    """
    name = f"data of {workdir.name}"
    try:
        records = reading.source_of(config)
        check_classes(config, records)
        known = same_data(config, records, workdir)
    except Ending as error:
        processes.told_by_all(name, json.dumps({"failed": error.line()}))
        raise
    mine = {"records": len(records), "identity": identity_of(records)}
    said = list(map(json.loads, processes.told_by_all(name, json.dumps(mine))))
    failed = next((f"process {i}: {x['failed']}" for i, x in enumerate(said) if "failed" in x), "")
    if failed:
        raise InputError(failed)
    other = next((i for i, told in enumerate(said) if told != said[0]), None)
    if other is not None:
        there, here = said[other]["records"], said[0]["records"]
        raise ConfigError(
            "data.name",
            config.data.name,
            f"process {other} reads other data than process 0 ({there} records and {here}); give "
            "all processes the same files",
        )
    return records, known


def warn_if_untold(config: ConfigDict, records: RecordSource) -> None:
    """Say so if a model of texts is trained on a source that is known to have no captions.

    Raises:
      ConfigError: it is a CLIP, which would learn nothing.
    """
    known = getattr(records, "captioned", None)
    untold = known is not None and not known()
    allowed = f"{records!r} has no captions, which a CLIP compares with pictures (docs/data.md)"
    require(
        not (untold and contrastive.is_contrastive(config)), "data.name", config.data.name, allowed
    )
    if untold and ("text" in config or "tokens" in config):
        print(
            f"data: {records!r} has no captions: every example trains as no text, and prompts will "
            "mean nothing; configs/folder.py makes a model without text",
            flush=True,
        )


def broken_of(config: ConfigDict, records: RecordSource, workdir: Path, *, look: bool) -> Broken:
    """The broken records that this process knows of.

    look: read some of the records, if they are of other people's files.
    """
    name = LEFT_OUT if processes.is_first() else f"{jax.process_index()}-{LEFT_OUT}"
    if look:  # what is listed there is of other data
        (workdir / name).unlink(missing_ok=True)
    broken = Broken(len(records), reading.max_bad_fraction_of(config), workdir / name)
    if look and getattr(records, "unchecked", False):
        looked = probe(records, broken)
        said = f"{len(broken.seen)} cannot be used" if broken.seen else "all can be used"
        print(f"data: {records!r}: looked at {looked} records, {said}", flush=True)
    return broken


def note_data(config: ConfigDict, records: RecordSource, workdir: Path) -> None:
    """Write down in the workdir which data the run is trained on."""
    write_whole(workdir / DATA, json.dumps(described(config, records), indent=2).encode())


def described(config: ConfigDict, records: RecordSource) -> JsonObject:
    """What is written into the workdir of the data that a run is trained on."""
    asked_for: JsonObject = {name: config.data[name] for name in ASKED_FOR}
    return {**asked_for, "records": len(records), "identity": identity_of(records)}


def same_data(config: ConfigDict, records: RecordSource, workdir: Path) -> bool:
    """Whether a run with this data was begun in the workdir before.

    Raises:
      ConfigError: it was asked for the same data, and they have changed since; unless
        data.allow_changed.
    """
    try:
        before = read_json(workdir / DATA, "the data are taken as they are")
    except FileNotFoundError:
        return False
    except StorageError as error:
        if processes.is_first():
            set_aside(workdir / DATA, str(error).removeprefix(f"{workdir / DATA}: "))
        return False
    now = described(config, records)
    if any(before.get(name) != now[name] for name in ASKED_FOR):
        return False  # the table of changes says so
    require(
        before.get("identity") == now["identity"] or config.data.allow_changed,
        "data.name",
        config.data.name,
        f"has changed since this run began ({before.get('records')} records then, {len(records)} "
        "now); restore it, or go on with --config.data.allow_changed=true",
    )
    return before.get("identity") == now["identity"]


def check_classes(config: ConfigDict, records: RecordSource) -> None:
    """Refuse a number of classes that is not the data's."""
    names = getattr(records, "classes", ())
    if "classes" in config and names:
        right = len(names) == config.classes.num
        require(right, "classes.num", config.classes.num, f"{config.data.name} has {len(names)}")


def _encoding_progress(done: int, total: int) -> None:
    if done == total or done % 2048 < 64:
        print(f"text embeddings: {done} of {total} captions", flush=True)
