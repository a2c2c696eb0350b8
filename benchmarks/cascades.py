"""The cascades of `benchmarks.sampling`, and the protocol of their programs. Needs only Python.

A cascade goes from text to 64 px and from there to 256 px. Each library has networks of its own
kind. Their blocks and multiples are chosen so that a picture needs the same FLOPs in all, and the
steps and the guidance of both stages are the same.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.protocol import forget_peak, peak_bytes, say
from benchmarks.works import Work

GUIDANCE = 7.5
AUG_LEVEL = 0.2  # of the small picture, in u; 200 of 1,000 steps
NAMES = ("diffjax", "diffusers", "imagen")


class Cascade(NamedTuple):
    """The networks of both stages, and the steps that each is sampled in."""

    base: Work
    sr: Work
    steps: tuple[int, int]


def _base(blocks: tuple[int, ...]) -> Work:
    return Work(64, 64, (1, 2, 3, 4), blocks, (False, False, True, True), 1, (64, 512))


def _sr(mults: tuple[int, ...], blocks: tuple[int, ...]) -> Work:
    attends = (False, False, False, True)
    return Work(256, 32, mults, blocks, attends, 1, (64, 512), low_res=True)


def _tiny(base_blocks: tuple[int, ...]) -> Cascade:
    shape = dict(width=32, mults=(1, 2), attends=(False, True), batch=1, text=(8, 64))
    base = Work(16, blocks=base_blocks, **shape)
    return Cascade(base, Work(64, blocks=(1, 1), low_res=True, **shape), (2, 2))


# GFLOP of one evaluation, base and SR: ours 17.05 and 28.95, diffusers' 16.85 and 29.52,
# imagen-pytorch's 17.00 and 28.79. Plain U-Nets, as in DeepFloyd IF, have fewer channels and blocks
# at 256 px than the Efficient U-Nets of the others.
SIZES = {
    "race": {
        "diffjax": Cascade(_base((2, 2, 2, 2)), _sr((1, 2, 4, 8), (2, 4, 8, 8)), (8, 4)),
        "diffusers": Cascade(_base((2, 2, 1, 2)), _sr((1, 1, 1, 4), (1, 1, 1, 2)), (8, 4)),
        "imagen": Cascade(_base((4, 4, 4, 3)), _sr((1, 2, 4, 8), (1, 2, 2, 2)), (8, 4)),
    },
    "tiny": {
        "diffjax": _tiny((1, 1)),
        "diffusers": _tiny((1, 1)),
        "imagen": _tiny((2, 2)),
    },
}


def serve(
    make: Callable[[int], Any], facts: Callable[[], dict[str, Any]], *, started: float
) -> None:
    """Makes a picture, announces the program, then follows the orders on stdin.

    The orders are "facts", "make N" and "end". make(n) makes n pictures and waits for them. facts()
    may take long. started: the `time.time()` at which the process was started.
    """
    make(1)
    say(ready=True, first_picture_s=round(time.time() - started, 2))
    for line in sys.stdin:
        order = line.split()
        if order[:1] == ["end"]:
            break
        if order[:1] == ["facts"]:
            say(**facts())
            forget_peak()
        if order[:1] == ["make"]:
            start = time.perf_counter()
            make(int(order[1]))
            say(s=time.perf_counter() - start)
    say(end=True, rss_peak_mb=round(peak_bytes() / 2**20, 1))
