"""Marks in a cache that say: it holds all captions of this data set. Then none need be read again.

A mark is a small JSON file named after the data set's fingerprint. It lists the shards that were
there when all captions were, and holds for as long as all of them are: who deletes a damaged shard
need not think of the marks. A mark that cannot be read is as good as none.
"""

import hashlib
import json
from pathlib import Path

from absl import logging

from diffjax.encoders.cache import shards


def put(folder: Path, fingerprint: str) -> None:
    """Say that the cache holds all captions of the data set; a warning if it cannot be written."""
    content = {"data": fingerprint, "shards": shards.finished(folder)}
    try:
        shards.write_whole(_path(folder, fingerprint), json.dumps(content).encode(), "mark")
    except OSError as error:  # a StorageError, or a folder that may only be read
        logging.warning("%s; the next start goes through all captions again", error)


def there(folder: Path, fingerprint: str) -> bool:
    """Whether the cache says so, and has lost no shard since."""
    path = _path(folder, fingerprint)
    if not (folder / shards.HEADER).exists():
        return False
    try:
        content = json.loads(path.read_bytes())
        return content["data"] == fingerprint and set(content["shards"]) <= set(
            shards.finished(folder)
        )
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        logging.warning("%s cannot be read (%s); the captions are gone through again", path, error)
        return False


def _path(folder: Path, fingerprint: str) -> Path:
    return folder / f"all-of-{hashlib.sha256(fingerprint.encode()).hexdigest()[:16]}.json"
