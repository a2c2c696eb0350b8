"""Opens the text embeddings that a stage trains on, or computes them first."""

import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np
from ml_collections import ConfigDict

from diffjax.core.errors import ConfigError, require
from diffjax.data.broken import BrokenRecord
from diffjax.data.captions import from_source, usable_captions_at
from diffjax.data.readers import Embed
from diffjax.data.record import BadRecord, RecordSource, fingerprint_of
from diffjax.devices import processes
from diffjax.encoders.cache import cache, marks
from diffjax.encoders.t5 import TextEncoder

LOOKED_FOR = 64  # records whose captions are looked up in the cache before a run begins
ENCODING_S = 24 * 3600  # how long the other processes wait for the first one to encode
_meetings = itertools.count()


def embeddings_of(
    config: ConfigDict,
    records: RecordSource,
    encoder: TextEncoder,
    progress: Callable[[int, int], None] | None = None,
) -> cache.Embeddings:
    """Opens the cache that data.embeddings names, or else the user's own cache.

    Captions that the user's cache lacks are encoded first, by the first process, while the others
    wait. If the cache has a mark that it holds all captions of these records, none is read.

    Raises:
      ConfigError: data.embeddings belongs to another encoder or lacks a caption, or a caption
        cannot be read.
      StorageError: the disk has no room for the embeddings.
    """
    path = config.data.get("embeddings", "")  # configs of older runs lack this key
    if not path:
        return made_of_captions(config, records, encoder, progress)
    try:
        return _named(path, records, encoder)
    except BadRecord as error:
        raise ConfigError("data.name", config.data.name, str(error)) from None


def made_of_captions(
    config: ConfigDict,
    records: RecordSource,
    encoder: cache.Encoder,
    progress: Callable[[int, int], None] | None = None,
    storage: str = cache.STORAGES[0],
) -> cache.Embeddings:
    """What an encoder makes of all captions of these records, in the user's own cache of it.

    Raises what `embeddings_of` does.
    """
    try:
        if not processes.is_first():
            meet()
        found = _users(records, encoder, progress, storage)
    except BadRecord as error:
        raise ConfigError("data.name", config.data.name, str(error)) from None
    if processes.is_first():
        meet()
    return found


def of_known_captions(embed: Embed) -> Embed:
    """`embed`, where all captions were encoded when the run began.

    A caption that it lacks has been changed since, so its record counts as broken.
    """
    return functools.partial(_embed_known, embed=embed)


def _embed_known(caption: str, *, embed: Embed) -> np.ndarray:
    try:
        return embed(caption)
    except cache.MissingCaption:
        raise BrokenRecord(
            f"its caption {caption[:40]!r} is new: it was another one when the run began"
        ) from None


def encoded(encoder: TextEncoder, captions: Sequence[str]) -> Callable[[str], np.ndarray]:
    """Encodes these captions as in training, without a cache; caption -> embeddings [l d]."""
    texts = sorted({caption for caption in captions if caption})
    rows = {"": cache.null_text(encoder.width).astype(np.float32)}
    if texts:
        made, mask = (np.asarray(x) for x in encoder.encode(texts, encoder.max_length))
        rows |= {text: made[i, : mask[i].sum()] for i, text in enumerate(texts)}
    return rows.__getitem__


def _users(
    records: RecordSource,
    encoder: cache.Encoder,
    progress: Callable[[int, int], None] | None,
    storage: str,
) -> cache.Embeddings:
    """The user's own cache of this encoder, after adding all captions of the records to it."""
    path, fingerprint = cache.default_folder(encoder), fingerprint_of(records)
    if fingerprint is not None and marks.has_mark(path, fingerprint):
        return cache.open_cache(path, encoder)
    captions = from_source(records)

    def counted(done: int, missing: int) -> None:
        if progress:  # assumes that unread records lack as many captions as those that were read
            progress(done, round(missing * captions.records / max(captions.read_records, 1)))

    found = cache.ensure(path, encoder, captions, progress=counted, storage=storage)
    if fingerprint is not None:
        marks.write_mark(path, fingerprint)
    return found


def _named(path: str, records: RecordSource, encoder: TextEncoder) -> cache.Embeddings:
    """The cache of data.embeddings, after looking up the captions of some records in it."""
    try:
        embeddings = cache.open_cache(path, encoder)
    except ValueError as error:
        raise ConfigError("data.embeddings", path, str(error)) from None
    for index in range(0, len(records), len(records) // LOOKED_FOR + 1):
        for caption in filter(None, usable_captions_at(records, index)):
            require(
                caption in embeddings,
                "data.embeddings",
                path,
                f"has no caption {caption!r}; python -m diffjax.embed --out {path} adds captions",
            )
    return embeddings


def meet() -> None:
    """Waits for all processes; all of them call this equally often."""
    processes.wait_for_all(f"columns {next(_meetings)}", ENCODING_S)
