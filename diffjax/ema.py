"""python -m diffjax.ema list --workdir runs/base64
python -m diffjax.ema reconstruct --workdir runs/base64 --sigma_rel 0.07

Makes averages of the parameters of any length after training. They are combined from snapshots of
power-function averages, which training writes if `train.snapshot_every` is set (docs/ema.md).
`python -m diffjax.sample --ema FILE` uses the file that this writes. Exit codes: 0 done, 2 bad
input, 5 storage.
"""

import argparse
import functools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffjax.checkpoint import portable
from diffjax.core import command, tensorfile
from diffjax.core.errors import ConfigError, StorageError, require
from diffjax.core.files import storing
from diffjax.core.tables import align_columns, format_bytes
from diffjax.training import profiles, snapshots
from diffjax.training.profiles import Fit
from diffjax.training.snapshots import Snapshot

# The widths whose errors `list` shows, and the error above which `reconstruct` warns.
WIDTHS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25)
LARGE = 0.1


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = command.parser("ema", __doc__)
    commands = flags.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="show the snapshots and what can be made of them")
    making = commands.add_parser("reconstruct", help="write the parameters of another average")
    for one in (listing, making):
        one.add_argument(
            "--workdir", type=command.path, required=True, help="where a stage trained"
        )
    making.add_argument("--sigma_rel", type=float, required=True, help="relative width, e.g. 0.07")
    making.add_argument("--step", type=int, help="the average at this step; default: the last one")
    making.add_argument(
        "--out", type=command.path, help="default: WORKDIR/averages/power_S_STEP..."
    )
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the flags and does what they say; returns the exit code."""
    return command.run_command(parser(), work, arguments)


def work(flags: argparse.Namespace) -> None:
    """Lists the snapshots, or writes an average."""
    if flags.command == "list":
        print(snapshot_table(flags.workdir))
        return
    path, made = reconstruct(flags.workdir, flags.sigma_rel, flags.step, flags.out)
    note = "; keep more snapshots for a better one" if made.error > LARGE else ""
    print(f"{path}: profile error {made.error:.2g}{note}")


def snapshot_table(workdir: Path) -> str:
    """A line for each snapshot of a workdir, and the errors of averages made from them.

    Raises:
      ConfigError: the workdir has no snapshots.
    """
    found = _found(workdir)
    lines = [("average", "step", "bytes", "written")]
    for one in found:
        stat = one.path.stat()
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stat.st_mtime))
        lines.append((one.name, str(one.step), format_bytes(stat.st_size), when))
    text = align_columns(lines)
    last = found[-1].step
    text += ["", f"averages of step {last} that can be made:", "sigma_rel  profile error"]
    text += [f"{width:<9}  {fitted(found, width, last).error:.1e}" for width in WIDTHS]
    return "\n".join(text)


def fitted(found: Sequence[Snapshot], sigma_rel: float, step: int) -> Fit:
    """The combination of snapshots that comes nearest to the average of this width at `step`."""
    stored = profiles.profiles_of([one.sigma_rel for one in found], [one.step for one in found])
    return profiles.fit(stored, profiles.profiles_of([sigma_rel], [step]))


def reconstruct(
    workdir: Path, sigma_rel: float, step: int | None = None, out: Path | None = None
) -> tuple[Path, Fit]:
    """Writes the parameters of the power-function average of width `sigma_rel`.

    Sums are computed in float64 and written as float32. Only a few tensors are in memory at a time.

    Returns:
      The path of the file, and the combination of snapshots with its error.

    Raises:
      ConfigError: there is no such width, or no snapshot of that step.
      StorageError: a snapshot is damaged, or the disk is full.
    """
    found = _found(workdir)
    try:
        profiles.gamma_of(sigma_rel)
    except ValueError as error:
        raise ConfigError("--sigma_rel", sigma_rel, str(error)) from None
    steps = sorted({one.step for one in found})
    step = steps[-1] if step is None else step
    require(
        step in steps,
        "--step",
        step,
        f"want one with snapshots: {', '.join(map(str, steps))}",
    )
    used = [one for one in found if one.step <= step]
    shapes = _checked(used)
    fit = fitted(used, sigma_rel, step)
    tensors = {
        name: tensorfile.Promise(
            shape, np.dtype(np.float32), functools.partial(_sum, used, fit.coefficients, name)
        )
        for name, shape in shapes.items()
    }
    name = f"power_{sigma_rel:g}"
    metadata = {"ema": name, "step": str(step), "profile_error": f"{fit.error:.3g}"}
    if config := portable.config_of(workdir):
        metadata["config"] = config
    frozen, said = portable.frozen_of(workdir / portable.FROZEN)
    out = out or workdir / snapshots.FOLDER / f"{name}_{step:08d}.safetensors"
    with storing(out):
        tensorfile.write(out, {**tensors, **frozen}, {**metadata, **said})
    return out, fit


def _found(workdir: Path) -> list[Snapshot]:
    found = snapshots.find(workdir)
    require(
        bool(found),
        "--workdir",
        str(workdir),
        "has no snapshots of power-function averages; train with two of them, as "
        '--config.train.ema=\'("power_0.05","power_0.1")\', and train.snapshot_every > 0',
    )
    return found


def _checked(used: Sequence[Snapshot]) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors by name, after checking the snapshots' checksums."""
    shapes = None
    for one in used:
        try:
            tensorfile.verify(one.path)
            here = tensorfile.shapes(one.path)
        except ValueError as error:
            raise StorageError(f"{error}; delete it: the other snapshots suffice") from None
        if shapes not in (None, here):
            raise StorageError(
                f"{one.path}: its tensors differ from those of {used[0].path}: one of them is of "
                "another model; delete it"
            )
        shapes = here
    assert shapes is not None
    return shapes


def _sum(used: Sequence[Snapshot], coefficients: np.ndarray, name: str) -> np.ndarray:
    parts = (tensorfile.read(one.path, name).astype(np.float64) for one in used)
    total = sum(x * part for x, part in zip(coefficients, parts, strict=True))
    return np.asarray(total, np.float32)


if __name__ == "__main__":
    command.start(main)
