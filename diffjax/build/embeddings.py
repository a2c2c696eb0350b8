"""The embeddings that a stage trains on: a cache that the config names, or one made on the way."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from ml_collections import ConfigDict

from diffjax.core.errors import ConfigError, require
from diffjax.data.captions import from_source
from diffjax.data.record import BadRecord, RecordSource, captions_at, fingerprint_of
from diffjax.devices import processes
from diffjax.encoders.cache import cache, marks
from diffjax.encoders.t5 import TextEncoder

LOOKED_FOR = 64  # records whose captions are looked for before a run begins
ENCODING_S = 24 * 3600  # as long as the first process may take to encode, and the others wait
_meetings = itertools.count()


def embeddings_of(
    config: ConfigDict,
    records: RecordSource,
    encoder: TextEncoder,
    progress: Callable[[int, int], None] | None = None,
) -> cache.Embeddings:
    """Those of data.embeddings; or else the user's cache, made to hold the records' captions.

    In the latter case the first process encodes, and the others wait for it. A cache that has held
    all captions of these very records before is opened without reading any.

    Raises:
      ConfigError: data.embeddings is another encoder's, or lacks a caption; or a caption cannot be
        read.
      StorageError: there is no room for what has to be made.
    """
    path = config.data.get("embeddings", "")  # configs of older runs have no such key
    try:
        if path:
            return _named(path, records, encoder)
        if not processes.is_first():
            _meet()
        found = _users(records, encoder, progress)
    except BadRecord as error:
        raise ConfigError("data.name", config.data.name, str(error)) from None
    if processes.is_first():
        _meet()
    return found


def encoded(encoder: TextEncoder, captions: Sequence[str]) -> Callable[[str], np.ndarray]:
    """The embeddings of these captions as training is told them, made now and not kept."""
    texts = sorted({caption for caption in captions if caption})
    rows = {"": cache.null_text(encoder.width).astype(np.float32)}
    if texts:
        made, mask = (np.asarray(x) for x in encoder.encode(texts, encoder.max_length))
        rows |= {text: made[i, : mask[i].sum()] for i, text in enumerate(texts)}
    return rows.__getitem__


def _users(
    records: RecordSource, encoder: TextEncoder, progress: Callable[[int, int], None] | None
) -> cache.Embeddings:
    """The user's cache of this encoder, with all captions of the records."""
    path, fingerprint = cache.default_folder(encoder), fingerprint_of(records)
    if fingerprint is not None and marks.has_mark(path, fingerprint):
        return cache.open_cache(path, encoder)
    captions = from_source(records)

    def counted(done: int, missing: int) -> None:
        if progress:  # of the records not yet read, as many captions are taken to be missing
            progress(done, round(missing * captions.records / max(captions.read_records, 1)))

    found = cache.ensure(path, encoder, captions, progress=counted)
    if fingerprint is not None:
        marks.write_mark(path, fingerprint)
    return found


def _named(path: str, records: RecordSource, encoder: TextEncoder) -> cache.Embeddings:
    """The cache of data.embeddings, in which some of the captions have been looked for."""
    try:
        embeddings = cache.open_cache(path, encoder)
    except ValueError as error:
        raise ConfigError("data.embeddings", path, str(error)) from None
    for index in range(0, len(records), len(records) // LOOKED_FOR + 1):
        for caption in filter(None, captions_at(records, index)):
            require(
                caption in embeddings,
                "data.embeddings",
                path,
                f"has no caption {caption!r}; python -m diffjax.embed --out {path} adds captions",
            )
    return embeddings


def _meet() -> None:
    """Wait for all processes; each has come here as often as the others."""
    processes.wait_for_all(f"text embeddings {next(_meetings)}", ENCODING_S)
