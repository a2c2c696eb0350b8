"""Checkpoints: saved in the background, with a checksum of every file, and verified when read.

The command line is in __main__.py.
"""

from diffjax.checkpoint.manifest import StepReport, inspect
from diffjax.checkpoint.reading import VERIFY, choose, read, restore, restore_part
from diffjax.checkpoint.saving import (
    Checkpoints,
    finish,
    needed_bytes,
    open_dir,
    open_to_read,
    save,
)
from diffjax.checkpoint.steps import survey

__all__ = [
    "VERIFY", "Checkpoints", "StepReport", "choose", "finish", "inspect", "needed_bytes",
    "open_dir", "open_to_read", "read", "restore", "restore_part", "save", "survey",
]  # fmt: skip
