"""Watches the loss: how many steps in a row were skipped, and which losses are spikes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np

WINDOW = 200  # a loss is compared with at most so many losses before it
LEAST = 20  # with fewer losses before it, a loss is never a spike
NEAR = 0.01  # a loss stands at that of guessing if it differs by less than this share
FAR = 10.0  # a spike is more than so many robust standard deviations above the median


@dataclass(frozen=True)
class Health:
    """What must be known about the earlier steps to judge the next one; saved in the checkpoint.

    recent: the last finite losses. bad_in_a_row: the steps skipped since the last good one.
    skipped: all skipped steps. spikes: the number of spikes so far.
    """

    recent: tuple[float, ...] = ()
    bad_in_a_row: int = 0
    skipped: int = 0
    spikes: int = 0


@dataclass(frozen=True)
class Spike:
    """A loss that is `score` robust standard deviations above the median of the losses before."""

    step: int
    loss: float
    median: float
    score: float


def observe(
    health: Health, first_step: int, losses: Sequence[float], skipped: Sequence[float]
) -> tuple[Health, list[Spike]]:
    """(the health after these steps, the spikes among them).

    The steps begin at `first_step`; `skipped` is 1 for a skipped step and 0 for a good one. The
    score of a loss x is (x - median) / (1.4826 MAD), where MAD is the median distance from the
    median (Iglewicz & Hoaglin 1993). Unlike a mean, the median is not moved by a spike.
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


def stands_at(health: Health, chance: float) -> bool:
    """Whether the last WINDOW losses have their median within NEAR of what guessing would have.

    So a network has learned nothing, or has ceased to tell its inputs apart.
    """
    if len(health.recent) < WINDOW:
        return False
    return bool(abs(float(np.median(health.recent)) - chance) <= NEAR * abs(chance))


class SavedHealth(TypedDict, total=False):
    """The fields of a `Health` as JSON has them."""

    recent: list[float]
    bad_in_a_row: int
    skipped: int
    spikes: int


def to_json(health: Health) -> SavedHealth:
    """The health as JSON, without loss of precision."""
    return SavedHealth(
        recent=list(health.recent),
        bad_in_a_row=health.bad_in_a_row,
        skipped=health.skipped,
        spikes=health.spikes,
    )


def from_json(saved: SavedHealth) -> Health:
    """The inverse of `to_json`."""
    return Health(
        tuple(saved.get("recent", ())),
        saved.get("bad_in_a_row", 0),
        saved.get("skipped", 0),
        saved.get("spikes", 0),
    )
