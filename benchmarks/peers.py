"""Ours and others on the same work, taking turns in one run.

    python -m benchmarks.peers W1 train --peers PYTHON [--rounds 5] [--out benchmarks/results]

PYTHON: of an environment with requirements-bench.txt. Every round lets each program run a few
steps, the first of them thrown away, in rotating order, and the ratio to ours is paired by round:
machines drift, ratios within a round hardly do. Prints a table, and appends the same as JSON lines
with versions and date to OUT/peers.jsonl.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = {"W1": ("diffusers", "imagen"), "W2": ("imagen",), "W3": ("diffusers",)}


class Racer:
    """A program that speaks the protocol of `benchmarks.worker`."""

    def __init__(self, command: list[str]):
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.facts = self.hear("ready")
        self.rounds: list[float] = []

    def hear(self, key: str) -> dict:
        """The next line of JSON that has `key`."""
        assert self.process.stdout
        for line in self.process.stdout:
            try:
                said = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(said, dict) and key in said:
                return said
        raise SystemExit(f"{' '.join(self.process.args)} ended before it said {key!r}")  # type: ignore[arg-type]

    def go(self, num_steps: int) -> None:
        """A turn: the median of the steps after the first."""
        assert self.process.stdin
        print("go", num_steps + 1, file=self.process.stdin, flush=True)
        self.rounds.append(statistics.median(self.hear("ms")["ms"][1:]))

    def end(self) -> dict:
        """What it says at the end."""
        assert self.process.stdin
        print("end", file=self.process.stdin, flush=True)
        said = self.hear("end")
        self.process.wait()
        return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", choices=PEERS)
    parser.add_argument("mode", choices=("train", "denoise"))
    parser.add_argument("--peers", required=True, help="python with requirements-bench.txt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    flags = parser.parse_args()
    work = [flags.work, flags.mode]
    commands = [[sys.executable, "-m", "benchmarks.worker", *work]]
    for name in PEERS[flags.work]:
        commands.append([flags.peers, "benchmarks/peer_worker.py", name, *work])  # noqa: PERF401
    racers = [Racer(command) for command in commands]
    for turn in range(flags.rounds):
        for i in range(len(racers)):
            racers[(turn + i) % len(racers)].go(flags.steps)
    ours = racers[0]
    flags.out.mkdir(parents=True, exist_ok=True)
    print(f"{flags.work} {flags.mode}, {flags.rounds} rounds, {os.cpu_count()} cores, load "
          f"{os.getloadavg()[0]:.1f}")  # fmt: skip
    for racer in racers:
        ms = statistics.median(racer.rounds)
        ratio = statistics.median(
            theirs / mine for theirs, mine in zip(racer.rounds, ours.rounds, strict=True)
        )
        facts = {
            **racer.facts,
            **racer.end(),
            "ms": round(ms, 1),
            "images_per_s": round(racer.facts["images_step"] / ms * 1e3, 3),
            "gflops": round(racer.facts["flops_step"] / ms / 1e6, 1),
            "ours_is_faster_by": round(ratio, 3),
            "date": datetime.date.today().isoformat(),
            "cores": os.cpu_count(),
        }
        print(
            "{name:10} {params:>11,} parameters {ms:9.1f} ms {images_per_s:8.3f} images/s "
            "{gflops:7.1f} GFLOP/s {rss_peak_mb:8.0f} MB; ours is {ours_is_faster_by:.2f} times "
            "as fast".format(**facts)
        )
        with (flags.out / "peers.jsonl").open("a") as file:
            print(json.dumps(facts), file=file)


if __name__ == "__main__":
    main()
