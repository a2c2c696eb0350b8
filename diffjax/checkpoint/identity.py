"""The name of a run: drawn at random when it begins, and kept in run.json beside its checkpoints.

Each manifest has it too. So a checkpoint that was copied from another run is noticed.
"""

import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from diffjax.core.errors import StorageError
from diffjax.core.files import read_json, set_aside, write_whole

NAME = "run.json"


def read(directory: Path) -> str:
    """The name of the run whose checkpoints lie in the folder; "" if none can be read."""
    try:
        return _named(directory / NAME)
    except (FileNotFoundError, StorageError):
        return ""


def establish(directory: Path, from_steps: Callable[[], str]) -> str:
    """The name of the run, which is written if it is not there; a damaged file is set aside.

    from_steps: the name in the newest good manifest, "" for none. It is taken if the file is not
    there; without it a new name is drawn.

    Raises:
      StorageError: the disk is full or fails.
    """
    path = directory / NAME
    try:
        return _named(path)
    except FileNotFoundError:
        pass
    except StorageError as error:
        set_aside(path, str(error).removeprefix(f"{path}: "))
    run = from_steps() or secrets.token_hex(8)
    begun = time.strftime("%Y-%m-%d %H:%M:%S %z")
    write_whole(path, (json.dumps({"run": run, "begun": begun}) + "\n").encode())
    return run


def _named(path: Path) -> str:
    remedy = "the newest good checkpoint says which run this is"
    run = read_json(path, remedy).get("run")
    if not isinstance(run, str) or not run:
        raise StorageError(f"{path}: damaged: names no run; {remedy}")
    return run
