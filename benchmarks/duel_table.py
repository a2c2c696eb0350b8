"""python -m benchmarks.duel_table: the races of CLIPs and of latents as a table in the README.

For each step and version of JAX, the last race in benchmarks/results counts.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.page import fill

HERE = Path(__file__).resolve().parent
FILES = ("clip.jsonl", "latent.jsonl")


def step_of(facts: dict[str, Any]) -> str:
    """What was timed, in words."""
    if "size" in facts:
        return f"`benchmarks.clip`: training, {facts['size']}, {facts['batch']} pairs"
    return (
        f"`benchmarks.latent {facts['part']}`: width {facts['width']}, latents of "
        f"{facts['side']} x {facts['side']}, {facts['rows']} rows"
    )


def table(lines: list[str]) -> str:
    """The table, and where it was measured."""
    races = {(step_of(facts), facts["ours_framework"]): facts for facts in map(json.loads, lines)}
    if not races:
        return "No race has been kept yet.\n"
    rows = [
        "| step | ours | ms | peer | ms | ours / it | peak MB, ours | its | quiet rounds | others "
        "took |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (step, framework), facts in races.items():
        cells = [
            step,
            framework,
            f"{facts['ours_ms']:,.0f}",
            facts["theirs_framework"],
            f"{facts['theirs_ms']:,.0f}",
            f"{facts['ratio']:.2f} ({facts['least']:.2f} to {facts['most']:.2f})",
            f"{facts['ours_mb']:,.0f}",
            f"{facts['theirs_mb']:,.0f}",
            f"{facts['quiet']} of {facts['rounds']}",
            f"{facts['others']:.0%}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    last = list(races.values())[-1]
    where = f"{last['date']}, {last['cores']} cores of {last['cpu']}, fp32, {last['tunables']}"
    return f"{where}\n\n" + "\n".join(rows) + "\n"


def main() -> None:
    files = [HERE / "results" / name for name in FILES]
    lines = [line for file in files if file.is_file() for line in file.read_text().splitlines()]
    fill("duels", table(lines))
    print(table(lines))


if __name__ == "__main__":
    main()
