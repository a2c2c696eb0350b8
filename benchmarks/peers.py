"""Ours and others on the same work, taking turns in one run.

    python -m benchmarks.peers W1 train --peers PYTHON --jax-peers PYTHON

PYTHON: of an environment with PyTorch's or with JAX's peers (benchmarks/README.md); either may be
left out. Every round lets each program run a few steps, the first of them thrown away, in rotating
order, and ratios to ours are paired by round: machines drift, ratios within a round hardly do.

A turn is quiet if other processes took at most a fifth of the cores meanwhile. Rounds go on until
every program has had --rounds quiet turns, or --seconds are over. Where a program has had three
quiet turns, only they count. Prints a line per program, and appends the same as JSON with versions
and date to OUT/peers.jsonl, from which `python -m benchmarks.peers_table` makes a table.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.works import MODES, WORKS

ROOT = Path(__file__).resolve().parent.parent
TORCH = {"W1": ("diffusers", "imagen"), "W2": ("diffusers", "imagen"), "W3": ("diffusers",)}
JAX = {"W1": ("hackable", "flaxdiff"), "W2": ("hackable",), "W3": ("hackable", "flaxdiff")}
QUIET = 0.2  # the share of all cores that others may take in a quiet turn
ENOUGH = 3  # quiet turns, for the others to be dropped
GAP_S = 0.3  # between turns: PyTorch's threads spin a while before they sleep
# A step takes and frees its memory as one block, and pages of 4 KiB cost it a tenth of its time.
TUNABLES = "glibc.malloc.hugetlb=1"


@dataclass(frozen=True)
class Turn:
    """The median milliseconds of a step, and the share of all cores that others took."""

    ms: float
    others: float

    @property
    def quiet(self) -> bool:
        """Whether the machine was ours."""
        return self.others <= QUIET


class Racer:
    """A program that speaks the protocol of `benchmarks.protocol`; turns: one a round."""

    def __init__(self, command: list[str], env: dict[str, str], errors: Path):
        self.command, self.errors = command, errors
        with errors.open("w") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=file, text=True,
            )  # fmt: skip
        self.facts = self.hear("ready")
        self.turns: list[Turn] = []

    def hear(self, key: str) -> dict[str, Any]:
        """The next line of JSON that has `key`.

        Raises:
          RuntimeError: the program ended before it; with the last of what it wrote to stderr.
        """
        assert self.process.stdout
        for line in self.process.stdout:
            try:
                said = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(said, dict) and key in said:
                return said
        command, errors = " ".join(self.command), self.errors.read_text()
        raise RuntimeError(f"{command} ended before it said {key!r}:\n{errors[-2000:]}")

    def order(self, text: str) -> None:
        """A line to its stdin."""
        assert self.process.stdin
        print(text, file=self.process.stdin, flush=True)

    def go(self, num_steps: int) -> None:
        """A turn: the median of the steps after the first."""
        said, others = self.watched(f"go {num_steps + 1}", "ms")
        self.turns.append(Turn(statistics.median(said["ms"][1:]), others))

    def watched(self, order: str, key: str) -> tuple[dict[str, Any], float]:
        """(what it says of `key` after the order, the share of all cores that others took)."""
        busy, total, own = *ticks(), ticks_of(self.process.pid)
        self.order(order)
        said = self.hear(key)
        busy_after, total_after = ticks()
        others = (busy_after - busy) - (ticks_of(self.process.pid) - own)
        return said, max(0.0, others / max(1, total_after - total))

    def end(self) -> dict[str, Any]:
        """What it says at the end."""
        self.order("end")
        said = self.hear("end")
        self.process.wait()
        return said


def ticks() -> tuple[int, int]:
    """(busy, all) clock ticks of all cores since the machine started; zeros where nobody says."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0, 0
    counts = [int(field) for field in fields]
    return sum(counts) - counts[3] - counts[4], sum(counts)  # less idle and waiting for disks


def ticks_of(pid: int) -> int:
    """Clock ticks that all threads of a process have had."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def counted(*programs: list[Turn]) -> list[int]:
    """The rounds in which all the programs' turns were quiet; all rounds where those are few."""
    quiet = [
        i for i, turns in enumerate(zip(*programs, strict=True)) if all(t.quiet for t in turns)
    ]
    return quiet if len(quiet) >= ENOUGH else list(range(len(programs[0])))


def commands(flags: argparse.Namespace) -> list[list[str]]:
    """The programs of the race, ours first."""
    work = [flags.work, flags.mode]
    found = [
        [python, "-m", "benchmarks.worker", *work] for python in flags.ours or [sys.executable]
    ]
    for python, module, names in (
        (flags.peers, "benchmarks.peer_worker", TORCH[flags.work]),
        (flags.jax_peers, "benchmarks.jax_peer_worker", JAX[flags.work]),
    ):
        chosen = [name for name in names if not flags.only or name in flags.only.split(",")]
        found += [[python, "-m", module, name, *work] for name in chosen if python]
    return found


def race(flags: argparse.Namespace, folder: Path) -> list[Racer]:
    """The programs that started, after their turns; their stderr goes to the folder."""
    env = {"GLIBC_TUNABLES": TUNABLES, **os.environ}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)  # it would hide what compiling takes
    racers = []
    for i, command in enumerate(commands(flags)):
        try:
            racers.append(Racer(command, env, folder / f"{i}.txt"))
        except (RuntimeError, OSError) as error:
            if not racers:
                raise
            print(f"not in the race: {error}", file=sys.stderr)
    start = time.perf_counter()
    num = 0
    while num < flags.rounds or (
        min(sum(turn.quiet for turn in racer.turns) for racer in racers) < flags.rounds
        and time.perf_counter() - start < flags.seconds
    ):
        for i in range(len(racers)):
            racers[(num + i) % len(racers)].go(flags.steps)
            time.sleep(GAP_S)
        num += 1
    return racers


def result(racer: Racer, ours: Racer) -> dict[str, Any]:
    """What is to be known of a program; ratios above 1 say that ours is faster."""
    ms = statistics.median(racer.turns[i].ms for i in counted(racer.turns))
    pairs = counted(racer.turns, ours.turns)
    ratios = sorted(racer.turns[i].ms / ours.turns[i].ms for i in pairs)
    flops = racer.facts["flops_step"]
    ratio = statistics.median(ratios)
    facts = {key: value for key, value in racer.facts.items() if key != "ready"}
    return {
        **facts,
        "ms": round(ms, 1),
        "images_per_s": round(racer.facts["images_step"] / ms * 1e3, 3),
        "gflops": round(flops / ms / 1e6, 1),
        "images_ratio": round(ratio, 3),
        "images_ratio_ends": [round(ratios[0], 3), round(ratios[-1], 3)],
        "gflops_ratio": round(ratio * ours.facts["flops_step"] / flops, 3),
        "rss_peak_mb": racer.end()["rss_peak_mb"],
        "rounds": len(racer.turns),
        "quiet_turns": sum(turn.quiet for turn in racer.turns),
        "others": round(statistics.median(turn.others for turn in racer.turns), 3),
    }


def machine() -> dict[str, Any]:
    """Where and when it was measured."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "date": datetime.date.today().isoformat(),
        "cores": os.cpu_count(),
        "cpu": names[0] if names else "",
        "tunables": os.environ.get("GLIBC_TUNABLES", TUNABLES),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument(
        "--ours", action="append", help="python for ours, many times; the first is the measure"
    )
    parser.add_argument("--peers", help="python with PyTorch's peers")
    parser.add_argument("--jax-peers", help="python with JAX's peers")
    parser.add_argument("--only", default="", help="of the peers only these: NAME,NAME")
    parser.add_argument("--rounds", type=int, default=7, help="quiet turns wanted of each program")
    parser.add_argument("--steps", type=int, default=3, help="a turn, beside the one thrown away")
    parser.add_argument("--seconds", type=float, default=900, help="for rounds beyond --rounds")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        racers = race(flags, Path(folder))
        results = [result(racer, racers[0]) | machine() for racer in racers]
    print(f"{flags.work} {flags.mode}, {results[0]['cores']} cores, {results[0]['cpu']}")
    for facts in results:
        compiled = f"compiled in {facts['compile_s']:.1f} s" if "compile_s" in facts else "eager"
        print(
            "{name:10} {params:>11,} parameters  {ms:8.1f} ms  {images_per_s:7.3f} images/s  "
            "{gflops:6.1f} GFLOP/s; ours / it: {images_ratio:.2f} images/s, {gflops_ratio:.2f} "
            "GFLOP/s; {rss_peak_mb:5.0f} MB; {quiet_turns} of {rounds} turns quiet; ".format(
                **facts
            )
            + compiled
        )
    flags.out.mkdir(parents=True, exist_ok=True)
    with (flags.out / "peers.jsonl").open("a") as file:
        file.writelines(json.dumps(facts) + "\n" for facts in results)


if __name__ == "__main__":
    main()
