"""Marks in a cache: each says that the cache holds all captions of a data set.

The captions of such a data set need not be read again. A mark is a small JSON file, named after the
fingerprint of the data set. It lists the shards that the cache had when the mark was written, and
is valid while all of them exist; so a damaged shard can be deleted without deleting marks. A mark
that cannot be read is ignored.
"""

import hashlib
import json
from pathlib import Path

from absl import logging

from diffjax.encoders.cache import shards


def write_mark(folder: Path, fingerprint: str) -> None:
    """Writes the mark of a data set. If this fails, logs a warning and continues."""
    content = {"data": fingerprint, "shards": shards.shard_names(folder)}
    try:
        shards.write_whole(_path(folder, fingerprint), json.dumps(content).encode(), "mark")
    except OSError as error:  # a StorageError, or a folder that may only be read
        logging.warning("%s; the next start goes through all captions again", error)


def has_mark(folder: Path, fingerprint: str) -> bool:
    """Whether the cache has a mark of the data set, and all shards that the mark lists."""
    path = _path(folder, fingerprint)
    if not (folder / shards.HEADER).exists():
        return False
    try:
        content = json.loads(path.read_bytes())
        return content["data"] == fingerprint and set(content["shards"]) <= set(
            shards.shard_names(folder)
        )
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        logging.warning("%s cannot be read (%s); the captions are gone through again", path, error)
        return False


def _path(folder: Path, fingerprint: str) -> Path:
    return folder / f"all-of-{hashlib.sha256(fingerprint.encode()).hexdigest()[:16]}.json"
