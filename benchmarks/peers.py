"""Compares our speed with that of other libraries on the same work, in one run.

    python -m benchmarks.peers W1 train --peers PYTHON --jax-peers PYTHON

PYTHON is the interpreter of an environment with the PyTorch or the JAX libraries
(benchmarks/README.md); either may be left out. In each round every program runs a few steps, in
rotating order; the first step of a turn is not counted. Ratios to ours are formed within a round,
because the speed of a machine drifts, and such ratios hardly do.

A turn is quiet if other processes took at most a fifth of the cores meanwhile. Rounds go on until
every program has had --rounds quiet turns, or --seconds are over. If a program has had three quiet
turns, only its quiet turns count. Prints a line per program, and appends it as JSON with versions
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
QUIET = 0.2  # the share of all cores that other processes may take in a quiet turn
ENOUGH = 3  # with this number of quiet turns the other turns are not counted
GAP_S = 0.3  # pause between turns, because PyTorch's threads spin for a while before they sleep
# A step allocates and frees its memory as one block; with pages of 4 KiB it is a tenth slower.
TUNABLES = "glibc.malloc.hugetlb=1"


@dataclass(frozen=True)
class Turn:
    """The median milliseconds of a step, and the share of all cores that others took."""

    ms: float
    others: float

    @property
    def quiet(self) -> bool:
        """Whether other processes left us the machine."""
        return self.others <= QUIET


class Racer:
    """A running program that follows `benchmarks.protocol`; turns: one per round."""

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
        """Waits for the next line of JSON that has `key`.

        Raises:
          RuntimeError: the program ended first; the message has the end of its stderr.
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
        """Writes a line to the program's stdin."""
        assert self.process.stdin
        print(text, file=self.process.stdin, flush=True)

    def go(self, num_steps: int) -> None:
        """Lets the program take a turn, and keeps the median of the steps after the first."""
        said, others = self.watched(f"go {num_steps + 1}", "ms")
        self.turns.append(Turn(statistics.median(said["ms"][1:]), others))

    def watched(self, order: str, key: str) -> tuple[dict[str, Any], float]:
        """(the program's answer to the order, the share of all cores that others took)."""
        busy, total, own = *ticks(), ticks_of(self.process.pid)
        self.order(order)
        said = self.hear(key)
        busy_after, total_after = ticks()
        others = (busy_after - busy) - (ticks_of(self.process.pid) - own)
        return said, max(0.0, others / max(1, total_after - total))

    def end(self) -> dict[str, Any]:
        """Ends the program and returns its last line."""
        self.order("end")
        said = self.hear("end")
        self.process.wait()
        return said


def ticks() -> tuple[int, int]:
    """(busy, all) clock ticks of all cores since the machine started; zeros if not known."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0, 0
    counts = [int(field) for field in fields]
    return sum(counts) - counts[3] - counts[4], sum(counts)  # 3: idle, 4: waiting for disks


def ticks_of(pid: int) -> int:
    """The clock ticks that all threads of a process have used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def counted(*programs: list[Turn]) -> list[int]:
    """The rounds in which the turns of all programs were quiet, or all rounds if those are few."""
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
    """Runs the race and returns the programs that could start; their stderr goes to the folder."""
    env = {"GLIBC_TUNABLES": TUNABLES, **os.environ}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)  # a cache would hide the time of compiling
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
    """The results of a program; a ratio above 1 means that ours is faster."""
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
    """The machine and the date of the measurement."""
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
        "--ours",
        action="append",
        help="python with diffjax; may be repeated, ratios are to the 1st",
    )
    parser.add_argument("--peers", help="python with the PyTorch libraries")
    parser.add_argument("--jax-peers", help="python with the JAX libraries")
    parser.add_argument("--only", default="", help="only these libraries: NAME,NAME")
    parser.add_argument("--rounds", type=int, default=7, help="quiet turns wanted of each program")
    parser.add_argument("--steps", type=int, default=3, help="steps that count in each turn")
    parser.add_argument("--seconds", type=float, default=900, help="time for further rounds")
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
