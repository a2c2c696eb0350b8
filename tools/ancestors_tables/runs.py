"""The trainings that the tables need. Each is a preset of a config, but for what is compared."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from diffjax.build.stages import places

ROOT = Path(__file__).resolve().parents[2]


class Run(NamedTuple):
    """A training: the config, and the keys that are not those of its preset."""

    config: str
    changes: tuple[str, ...] = ()


LINEAR = "diffusion.schedule=linear"
SIMPLE = ("diffusion.objective=simple", "sample.sampler=ddpm")
RUNS = {
    "cosine_simple": Run("configs/iddpm.py:digits", SIMPLE),
    "cosine_hybrid": Run("configs/iddpm.py:digits"),
    "linear_simple": Run("configs/iddpm.py:digits", (*SIMPLE, LINEAR)),
    "linear_hybrid": Run("configs/iddpm.py:digits", (LINEAR,)),
    "cosine_vlb": Run("configs/iddpm.py:digits_vlb"),
    "adm": Run("configs/adm.py:digits"),
    "classifier": Run("configs/adm_classifier.py:digits"),
}


def trained(out: Path, name: str) -> Path:
    """The workdir of a run, which is trained first, or goes on, if it is not at its end.

    It is trained in a process of its own, so it can be stopped without the tables.

    Raises:
      subprocess.CalledProcessError: training failed.
    """
    workdir = out / name
    if not finished(workdir):
        flags = ["--config", RUNS[name].config, "--workdir", str(workdir)]
        flags += [f"--config.{change}" for change in RUNS[name].changes]
        subprocess.run([sys.executable, "-m", "diffjax.main", *flags], cwd=ROOT, check=True)
    return workdir


def finished(workdir: Path) -> bool:
    """Whether the checkpoint of the last step is there."""
    if not (workdir / places.CONFIG).exists():
        return False
    last = places.options_of(workdir).train.num_steps
    return (workdir / "checkpoints" / str(last)).is_dir()
