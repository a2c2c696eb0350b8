"""Is the loss still a loss: steps skipped in a row, and losses far from those before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

WINDOW = 200  # losses that the next are compared with
LEAST = 20  # ... and before so many are there, with none
FAR = 10.0  # a spike lies so many robust standard deviations above the median


@dataclass(frozen=True)
class Health:
    """What must be known of the steps before to judge the next; kept in the checkpoint.

    recent: the last finite losses. bad_in_a_row: steps skipped since the last good one. skipped:
    all of them. spikes: losses that were called so.
    """

    recent: tuple[float, ...] = ()
    bad_in_a_row: int = 0
    skipped: int = 0
    spikes: int = 0


@dataclass(frozen=True)
class Spike:
    """A loss `score` robust standard deviations above the median of those before it."""

    step: int
    loss: float
    median: float
    score: float


def observe(
    health: Health, first_step: int, losses: Sequence[float], skipped: Sequence[float]
) -> tuple[Health, list[Spike]]:
    """Health after the steps from `first_step` on, of which some were skipped (1) or not (0).

    The score is (x - median) / (1.4826 MAD), MAD the median distance from the median (Iglewicz &
    Hoaglin 1993): a spike does not move what the next are measured by, as it would a mean.
    """
    spikes = []
    for step, (loss, bad) in enumerate(zip(losses, skipped, strict=True), start=first_step):
        if bad:
            health = replace(
                health, bad_in_a_row=health.bad_in_a_row + 1, skipped=health.skipped + 1
            )
            continue
        if len(health.recent) >= LEAST:
            median = float(np.median(health.recent))
            distance = float(np.median(np.abs(np.subtract(health.recent, median))))
            score = (loss - median) / max(1.4826 * distance, 1e-12)
            if score > FAR:
                spikes.append(Spike(step, float(loss), median, float(score)))
        recent = (*health.recent, float(loss))[-WINDOW:]
        health = replace(health, recent=recent, bad_in_a_row=0)
    return replace(health, spikes=health.spikes + len(spikes)), spikes


def to_json(health: Health) -> dict[str, Any]:
    """As JSON can hold it, exactly."""
    return {**vars(health), "recent": list(health.recent)}


def from_json(saved: Mapping[str, Any]) -> Health:
    """The inverse of `to_json`."""
    return Health(**{**saved, "recent": tuple(saved.get("recent", ()))})
