"""Compares the time that cascades 64 -> 256 px of ours and of other libraries take, in one run.

    python -m benchmarks.sampling --peers PYTHON

PYTHON is the interpreter of an environment with the PyTorch libraries (benchmarks/README.md). The
networks have equal FLOPs, and steps and guidance are the same (`benchmarks.cascades`). First every
program is started twice, alone, and the seconds until its first picture are taken; the second time
ours finds its compiled programs on disk. Then the programs take turns at making 1, 4 and 16
pictures, in rotating order, and ratios to ours are formed within a round. A turn is quiet if other
processes took at most a fifth of the cores; if a program has three quiet turns, only these count.
Prints a line per program and number, appends it as JSON to OUT/sampling.jsonl, and writes the table
of benchmarks/README.md.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import page
from benchmarks.cascades import GUIDANCE, NAMES, SIZES
from benchmarks.peers import GAP_S, ROOT, TUNABLES, Racer, Turn, counted, machine

MODULES = ("benchmarks.sampling_worker", "benchmarks.sampling_peer_worker")


def start(python: str, name: str, size: str, env: dict[str, str], folder: Path) -> Racer:
    """Starts a program and waits for its first picture."""
    module = MODULES[name != NAMES[0]]
    command = [python, "-m", module, name, "--size", size, "--started", str(time.time())]
    return Racer(command, env, folder / f"{name}_{time.time_ns()}.txt")


def begin(flags: argparse.Namespace, folder: Path) -> dict[str, tuple[Racer, dict[str, Any]]]:
    """Starts each program twice; name -> (the program, facts about it), ours first."""
    env = {
        "GLIBC_TUNABLES": TUNABLES,
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
    }
    pythons = dict.fromkeys(NAMES, flags.peers) | {NAMES[0]: flags.ours}
    found: dict[str, tuple[Racer, dict[str, Any]]] = {}
    for name in flags.only.split(","):
        if not pythons[name]:
            continue
        try:
            racer = start(pythons[name], name, flags.size, env, folder)
        except (RuntimeError, OSError) as error:
            if name == NAMES[0]:
                raise
            print(f"not in the race: {error}", file=sys.stderr)
            continue
        again = start(pythons[name], name, flags.size, env, folder)
        racer.order("facts")
        facts = racer.hear("flops_picture")
        found[name] = (
            racer,
            {
                "name": name,
                **facts,
                "first_picture_s": racer.facts["first_picture_s"],
                "first_picture_again_s": again.facts["first_picture_s"],
            },
        )
        again.end()
    return found


def race(racers: list[Racer], count: int, rounds: int) -> list[list[Turn]]:
    """The turns of each program at making `count` pictures, in milliseconds."""
    turns: list[list[Turn]] = [[] for _ in racers]
    for num in range(rounds):
        for i in range(len(racers)):
            which = (num + i) % len(racers)
            said, others = racers[which].watched(f"make {count}", "s")
            turns[which].append(Turn(1e3 * said["s"], others))
            time.sleep(GAP_S)
    return turns


def result(count: int, flops: float, theirs: list[Turn], ours: list[Turn]) -> dict[str, Any]:
    """The results of a program's turns; a ratio above 1 means that ours is faster."""
    seconds = statistics.median(theirs[i].ms for i in counted(theirs)) / 1e3
    ratios = sorted(theirs[i].ms / ours[i].ms for i in counted(theirs, ours))
    return {
        "pictures": count,
        "seconds": round(seconds, 3),
        "gflops": round(count * flops / seconds / 1e9, 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_ends": [round(ratios[0], 3), round(ratios[-1], 3)],
        "quiet_turns": sum(turn.quiet for turn in theirs),
        "rounds": len(theirs),
    }


def table(lines: list[dict[str, Any]]) -> str:
    """A race as two tables: times and ratios, then the times of the first pictures."""
    first = lines[0]
    counts = list(dict.fromkeys(line["pictures"] for line in lines))
    programs = {line["name"]: line for line in lines}
    at = {(line["name"], line["pictures"]): line for line in lines}
    head = " | ".join(f"{count}, s | it / ours" for count in counts)
    rows = [f"| program | parameters | GFLOP a picture | {head} |"]
    rows.append("|---|" + "---:|" * (2 + 2 * len(counts)))
    starts = ["| program | first picture, s | started again, s | of the first, in XLA, s |"]
    starts.append("|---|---:|---:|---:|")
    for name, facts in programs.items():
        cells = [f"{name}, {facts['framework']}", f"{facts['params'] / 1e6:.1f} M"]
        cells.append(f"{facts['flops_picture'] / 1e9:,.0f}")
        for count in counts:
            low, high = at[name, count]["ratio_ends"]
            spread = f" ({low:.2f} to {high:.2f})" if low != high else ""
            cells += [
                f"{at[name, count]['seconds']:.2f}",
                f"{at[name, count]['ratio']:.2f}{spread}",
            ]
        rows.append(f"| {' | '.join(cells)} |")
        compiled = f"{facts['compile_s']:.1f}" if "compile_s" in facts else "eager"
        starts.append(
            f"| {cells[0]} | {facts['first_picture_s']:.1f} | "
            f"{facts['first_picture_again_s']:.1f} | {compiled} |"
        )
    steps = " and ".join(map(str, first["steps"]))
    return (
        f"{first['date']}, {first['cores']} cores of {first['cpu']}, fp32, {first['tunables']}; "
        f"{steps} steps, guidance {first['guidance']}\n\n" + "\n".join([*rows, "", *starts])
    )


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--ours", default=sys.executable, help="python with diffjax")
    flags.add_argument("--peers", help="python with the PyTorch libraries")
    flags.add_argument("--only", default=",".join(NAMES), help="only these programs: NAME,NAME")
    flags.add_argument("--size", choices=SIZES, default="race", help="tiny: does it work at all?")
    flags.add_argument("--pictures", default="1,4,16", help="numbers of pictures to make")
    flags.add_argument("--rounds", default="5,3,2", help="turns at each number")
    flags.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    flags.add_argument("--no-page", action="store_true", help="leave benchmarks/README.md alone")
    return flags


def main(arguments: list[str] | None = None) -> None:
    flags = parser().parse_args(arguments)
    counts = [int(part) for part in flags.pictures.split(",")]
    rounds = [int(part) for part in flags.rounds.split(",")]
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        programs = begin(flags, Path(folder))
        racers = [racer for racer, _ in programs.values()]
        for count, num in zip(counts, rounds, strict=True):
            turns = race(racers, count, num)
            for (_, facts), theirs in zip(programs.values(), turns, strict=True):
                shape = SIZES[flags.size][facts["name"]]
                how = {"size": flags.size, "steps": list(shape.steps), "guidance": GUIDANCE}
                found = result(count, facts["flops_picture"], theirs, turns[0])
                lines.append({**facts, **how, **found, **machine()})
        peaks = {name: racer.end()["rss_peak_mb"] for name, (racer, _) in programs.items()}
    lines = [{**line, "rss_peak_mb": peaks[line["name"]]} for line in lines]
    for line in lines:
        print(
            "{name:10} {pictures:3} pictures  {seconds:7.2f} s  {gflops:6.1f} GFLOP/s; "
            "it / ours: {ratio:.2f}; {rss_peak_mb:5.0f} MB; {quiet_turns} of {rounds} turns quiet; "
            "first picture after {first_picture_s:.1f} s, started again "
            "{first_picture_again_s:.1f} s".format(**line)
        )
    flags.out.mkdir(parents=True, exist_ok=True)
    with (flags.out / "sampling.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    if flags.size == "race" and not flags.no_page:
        page.fill("sampling", table(lines))


if __name__ == "__main__":
    main()
