"""Checkpoints one can trust: saved behind the training, verified when read.

The command line is in __main__.py.
"""

from diffjax.checkpoint.folder import survey
from diffjax.checkpoint.manifest import Found, inspect
from diffjax.checkpoint.reading import VERIFY, choose, read, restore, restore_part
from diffjax.checkpoint.saving import (
    Checkpoints,
    finish,
    needed_bytes,
    open_dir,
    open_to_read,
    save,
)

__all__ = [
    "VERIFY", "Checkpoints", "Found", "choose", "finish", "inspect", "needed_bytes", "open_dir",
    "open_to_read", "read", "restore", "restore_part", "save", "survey",
]  # fmt: skip
