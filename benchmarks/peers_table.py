"""python -m benchmarks.peers_table: writes the results of races as tables to benchmarks/README.md.

For each program, the last race in benchmarks/results/peers.jsonl counts.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.page import fill

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results/peers.jsonl"


def latest(lines: list[str]) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """(work, mode) -> "program, framework" -> its last results, sorted by work."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for facts in map(json.loads, lines):
        program = f"{facts['name']}, {facts['framework']}"
        found.setdefault((facts["work"], facts["mode"]), {})[program] = facts
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[0][1] != "train")))


def table(programs: dict[str, dict[str, Any]]) -> str:
    """The table of one race."""
    lines = [
        "| program | parameters | GFLOP a step | ms | images/s | GFLOP/s | ours / it: images/s | "
        "ours / it: GFLOP/s | peak MB | compiled in | quiet turns |",
        "|---|" + "---:|" * 10,
    ]
    for name, facts in programs.items():
        low, high = facts["images_ratio_ends"]
        spread = f" ({low:.2f} to {high:.2f})" if low != high else ""
        cells = [
            name,
            f"{facts['params'] / 1e6:.1f} M",
            f"{facts['flops_step'] / 1e9:.1f}",
            f"{facts['ms']:,.0f}",
            f"{facts['images_per_s']:.2f}",
            f"{facts['gflops']:.0f}",
            f"{facts['images_ratio']:.2f}{spread}",
            f"{facts['gflops_ratio']:.2f}",
            f"{facts['rss_peak_mb']:,.0f}",
            f"{facts['compile_s']:.1f} s" if "compile_s" in facts else "eager",
            f"{facts['quiet_turns']} of {facts['rounds']}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def section(lines: list[str]) -> str:
    """The tables of all races, each under a heading."""
    parts = []
    for (work, mode), programs in latest(lines).items():
        facts = next(iter(programs.values()))
        parts.append(
            f"### {work} {mode}\n\n{facts['date']}, {facts['cores']} cores of {facts['cpu']}, "
            f"{facts['dtype']}, {facts['tunables']}\n\n{table(programs)}"
        )
    return "\n".join(parts) or "No race has been kept yet.\n"


def main() -> None:
    lines = RESULTS.read_text().splitlines() if RESULTS.is_file() else []
    fill("results", section(lines))
    print(section(lines))


if __name__ == "__main__":
    main()
