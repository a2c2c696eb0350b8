"""Writes power-function averages to disk during training; `diffjax.ema` combines them afterwards.

WORKDIR/averages/NAME/STEP.safetensors holds the average NAME after STEP steps, in float32.
"""

import re
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from diffjax.core import tensorfile, trees
from diffjax.core.files import storing
from diffjax.devices import mesh
from diffjax.training.averages import width_of
from diffjax.training.state import TrainState

FOLDER = "averages"


@dataclass(frozen=True)
class Snapshot:
    """The file `path` with the average `name`, of relative width sigma_rel, after `step` steps."""

    path: Path
    name: str
    sigma_rel: float
    step: int


def find(workdir: Path) -> list[Snapshot]:
    """The snapshots of a workdir, sorted by step and width. The files are not opened."""
    found = []
    for path in (workdir / FOLDER).glob("*/*.safetensors"):
        width = width_of(path.parent.name)
        if width is not None and re.fullmatch(r"\d+", path.stem):
            found.append(Snapshot(path, path.parent.name, width, int(path.stem)))
    return sorted(found, key=lambda snapshot: (snapshot.step, snapshot.sigma_rel))


class Snapshots:
    """Writes snapshots of the power-function averages among `names` in the background.

    Snapshots of steps after `step`, from which training continues, are deleted, because they will
    be made again, perhaps with other options. With several processes all must call this; the first
    one writes.
    """

    def __init__(self, workdir: Path, names: Iterable[str], step: int):
        self._folder = workdir / FOLDER
        self._names = [name for name in names if width_of(name) is not None]
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._writing: list[Future] = []
        if jax.process_index() == 0:
            for old in find(workdir):
                if old.step > step and old.name in self._names:
                    old.path.unlink()
            for temporary in self._folder.glob("*/.*.tmp"):  # a killed process left these
                temporary.unlink()

    def save(self, step: int, state: TrainState) -> None:
        """Copies the averages to the host and begins to write them; waits for earlier ones first.

        Raises:
          StorageError: the disk is full or fails, now or while earlier ones were written.
        """
        self.finish()
        for name in self._names:
            tensors = {}
            for key, leaf in trees.named_leaves(state.ema_params[name]).items():
                whole = mesh.to_host(leaf)
                if jax.process_index() == 0:
                    tensors[key] = np.array(whole)  # the next step takes the leaf's own memory
            if jax.process_index() == 0:
                path = self._folder / name / f"{step:08d}.safetensors"
                self._writing.append(self._writer.submit(_write, path, name, step, tensors))

    def finish(self) -> None:
        """Waits until all snapshots are on the disk.

        Raises:
          StorageError: the disk is full or fails.
        """
        writing, self._writing = self._writing, []
        for future in writing:
            future.result()


def _write(path: Path, name: str, step: int, tensors: dict[str, np.ndarray]) -> None:
    with storing(path):
        tensorfile.write(path, tensors, {"ema": name, "step": str(step)})
