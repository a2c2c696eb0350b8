"""python -m tools.ancestors_tables TABLE --out runs/ancestors

Trains on digits what a table of docs/ancestors.md needs, samples it, and writes OUT/TABLE.md and
OUT/TABLE.png. TABLE is cosine, variance, bits, guidance or steps. What is in OUT already is not
made again: trainings, which other tables may have made, sets of digits and bounds. A command that
was stopped goes on when it is given again. All five take about an hour on 2 CPU cores; a machine
of another kind has other digits in the last places.
"""

import argparse
from pathlib import Path

from diffjax.devices import mesh
from tools.ancestors_tables.tables import TABLES


def main() -> None:
    """Parses the flags and makes the tables."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("table", nargs="+", choices=TABLES)
    flags.add_argument("--out", type=Path, default=Path("runs/ancestors"))
    given = flags.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    mesh.keep_compilations()
    for name in given.table:
        text = TABLES[name](out)
        (out / f"{name}.md").write_text(text)
        print(text)


if __name__ == "__main__":
    main()
