"""The embeddings that a stage trains on: a cache that the config names, or one made on the way."""

from collections.abc import Callable

from ml_collections import ConfigDict

from diffjax.core.errors import ConfigError, require
from diffjax.data.record import RecordSource
from diffjax.encoders.cache import cache
from diffjax.encoders.t5 import TextEncoder

LOOKED_FOR = 64  # records whose captions are looked for before a run begins


def embeddings_of(
    config: ConfigDict,
    records: RecordSource,
    encoder: TextEncoder,
    progress: Callable[[int, int], None] | None = None,
) -> cache.Embeddings:
    """Those of data.embeddings; or else the user's cache, made to hold the records' captions.

    Raises:
      ConfigError: data.embeddings is another encoder's, or lacks a caption.
      StorageError: there is no room for what has to be made.
    """
    path = config.data.get("embeddings", "")  # configs of older runs have no such key
    if not path:
        captions = (caption for i in range(len(records)) for caption in records[i]["captions"])
        return cache.ensure(cache.users_path(encoder), encoder, captions, progress=progress)
    try:
        embeddings = cache.open_cache(path, encoder)
    except ValueError as error:
        raise ConfigError("data.embeddings", path, str(error)) from None
    for index in range(0, len(records), len(records) // LOOKED_FOR + 1):
        for caption in records[index]["captions"]:
            require(
                caption in embeddings,
                "data.embeddings",
                path,
                f"has no caption {caption!r}; python -m diffjax.embed --out {path} adds captions",
            )
    return embeddings
