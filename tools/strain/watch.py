"""Watches the memory, the descriptors and the threads of a process, and says whether they are flat.

    python -m tools.strain.watch PID [--minutes 28] [--every 10] [--lines FILE]

The process is only looked at, in `/proc`. A leak raises the floor, whatever is taken for a moment
above it, as while a checkpoint is saved. So the lowest values of the second and of the last quarter
of the time are compared; the first quarter is left for compiling and caches. Flat is: at most 2 %
and 8 MB more memory, and at most 2 more descriptors and threads. Exit codes: 0 flat, 1 not flat, 2
the process ended before.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FRACTION, MB, MORE = 0.02, 8.0, 2


class Sample(NamedTuple):
    """What a process holds at a moment."""

    seconds: float
    mb: float
    descriptors: int
    threads: int


def sample(pid: int, seconds: float) -> Sample:
    """Looks at the process.

    Raises:
        OSError: There is no such process, or it is another user's.
    """
    here = Path(f"/proc/{pid}")
    pages = int((here / "statm").read_text().split()[1])
    mb = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return Sample(seconds, mb, len(os.listdir(here / "fd")), len(os.listdir(here / "task")))


def quarters(samples: Sequence[Sample]) -> tuple[Sample, Sample]:
    """The lowest values of the second and of the last quarter of the samples."""
    size = max(len(samples) // 4, 1)
    parts = samples[size : 2 * size] or samples, samples[-size:]
    early, late = (Sample(*map(min, zip(*part, strict=True))) for part in parts)
    return early, late


def grown(samples: Sequence[Sample]) -> list[str]:
    """What grew, a line each; empty if all is flat."""
    early, late = quarters(samples)
    told = []
    if late.mb - early.mb > max(MB, FRACTION * early.mb):
        told.append(f"memory grew from {early.mb:.0f} to {late.mb:.0f} MB")
    for name in ("descriptors", "threads"):
        before, after = getattr(early, name), getattr(late, name)
        if after - before > MORE:
            told.append(f"{name} grew from {before} to {after}")
    return told


def summary(samples: Sequence[Sample]) -> str:
    """The floors, the peaks and the time, in a line."""
    early, late = quarters(samples)
    peak = max(one.mb for one in samples)
    return (
        f"{samples[-1].seconds / 60:.1f} minutes, {len(samples)} samples: memory {early.mb:.1f} -> "
        f"{late.mb:.1f} MB (peak {peak:.1f}), descriptors {early.descriptors} -> "
        f"{late.descriptors} (at most {max(one.descriptors for one in samples)}), "
        f"threads {early.threads} -> {late.threads}"
    )


def main() -> int:
    """Reads the flags and watches; returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("pid", type=int)
    flags.add_argument("--minutes", type=float, default=28)
    flags.add_argument("--every", type=float, default=10, help="seconds")
    flags.add_argument("--lines", type=Path, default=Path(os.devnull), help="a line per sample")
    told = flags.parse_args()
    samples: list[Sample] = []
    begun, ended = time.monotonic(), False
    with told.lines.open("w", buffering=1) as lines:
        while not ended and (seconds := time.monotonic() - begun) <= told.minutes * 60:
            try:
                samples.append(sample(told.pid, seconds))
            except OSError as error:
                print(f"process {told.pid}: {error.strerror}", file=sys.stderr)
                ended = True
            else:
                print(*samples[-1], sep="\t", file=lines)
                time.sleep(told.every)
    if samples:
        print(summary(samples), *grown(samples), sep="\n")
    return 2 if ended or not samples else bool(grown(samples))


if __name__ == "__main__":
    sys.exit(main())
