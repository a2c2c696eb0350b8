"""Two programs, ours and a peer's, take turns on equal networks with equal weights.

Each program is a process that follows `benchmarks.protocol` and has left its network's answer in
a file of its own, so the answers can be compared before the race.
"""

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import GAP_S, TUNABLES, Racer, Turn, counted, machine

OURS, THEIRS = "ours", "theirs"
AGREE = 1e-3  # of the largest number of an answer


def environment() -> dict[str, str]:
    """The environment of both programs."""
    return {"GLIBC_TUNABLES": TUNABLES, **os.environ}


def duel(
    commands: dict[str, list[str]], folder: Path, *, rounds: int, seconds: float, steps: int
) -> dict[str, Any]:
    """Runs both programs, which are named OURS and THEIRS; everything that was measured.

    folder: where each leaves its answer, NAME.npy. rounds: so many quiet turns of each are wanted,
    for which at most `seconds` are spent. steps: so many count in a turn, after the first.

    Raises:
      RuntimeError: a program failed, or the two answers are not equal.
    """
    racers: dict[str, Racer] = {}
    try:
        for name, command in commands.items():
            racers[name] = Racer(command, environment(), folder / f"{name}.txt")
        mine, other = (np.load(folder / f"{name}.npy") for name in (OURS, THEIRS))
        apart = float(np.abs(mine - other).max() / np.abs(other).max())
        if not apart < AGREE:
            raise RuntimeError(f"the answers differ by {apart:.1e}, want at most {AGREE}")
        take_turns(list(racers.values()), rounds, seconds, steps)
        versions = {f"{name}_framework": racer.facts["framework"] for name, racer in racers.items()}
        peaks = {f"{name}_mb": racer.end()["rss_peak_mb"] for name, racer in racers.items()}
    finally:
        for racer in racers.values():
            racer.process.kill()
    turns = {name: racer.turns for name, racer in racers.items()}
    return {"apart": apart, **result(turns), **machine(), **versions, **peaks}


def take_turns(racers: list[Racer], rounds: int, seconds: float, steps: int) -> None:
    """A turn of each program in each round, until all had as many quiet ones or time is over."""
    start, num = time.perf_counter(), 0
    while num < rounds or (
        min(sum(turn.quiet for turn in racer.turns) for racer in racers) < rounds
        and time.perf_counter() - start < seconds
    ):
        for i in range(len(racers)):
            racers[(num + i) % len(racers)].go(steps)
            time.sleep(GAP_S)
        num += 1


def result(turns: dict[str, list[Turn]]) -> dict[str, float]:
    """Milliseconds of a step of each program, and their ratio: above 1 ours is faster."""
    rounds = counted(turns[OURS], turns[THEIRS])
    ratios = sorted(turns[THEIRS][i].ms / turns[OURS][i].ms for i in rounds)
    others = [turn.others for its in turns.values() for turn in its]
    return {
        **{f"{name}_ms": statistics.median(its[i].ms for i in rounds) for name, its in
           turns.items()},
        "ratio": statistics.median(ratios),
        "least": ratios[0],
        "most": ratios[-1],
        "rounds": len(rounds),
        "quiet": sum(all(its[i].quiet for its in turns.values()) for i in rounds),
        "others": statistics.median(others),
    }  # fmt: skip


def keep(facts: dict[str, Any], file: Path | None) -> None:
    """Adds the facts to a file of JSON lines, if one is given."""
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as lines:
            lines.write(json.dumps(facts) + "\n")


def line(facts: dict[str, Any], peer: str) -> str:
    """What is printed of the facts of `duel`."""
    return (
        "ours {ours_ms:.0f} ms, {peer} {theirs_ms:.0f} ms; ours is {ratio:.2f} times as fast "
        "({least:.2f} to {most:.2f}); peak of memory {ours_mb:.0f} and {theirs_mb:.0f} MB; answers "
        "differ by {apart:.0e}; {rounds} rounds, others took {others:.0%}"
    ).format(peer=peer, **facts)
