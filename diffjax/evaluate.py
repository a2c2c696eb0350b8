"""python -m diffjax.evaluate runs/emoji --num 64 --out emoji.json

Evaluates trained stages on pictures that they were not trained on. WHERE is the folder of a stage
or of a cascade, "shipped", or several stages, smallest first; of a CLIP, it reports zero-shot
classification and retrieval. Writes all numbers, with what they
depend on, as JSON, and the loss by noise level as a PNG beside it. docs/evaluation.md explains the
numbers. Exit codes: 0 done, 2 bad input, 5 storage, 143 terminated.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

from diffjax.core import command
from diffjax.core.errors import require
from diffjax.core.json_types import Json

SHIPPED = "shipped"


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = command.parser("evaluate", __doc__)
    flags.add_argument(
        "where", nargs="+", type=command.path, metavar="WHERE", help="workdirs, exports, or shipped"
    )
    flags.add_argument(
        "--num", type=int, help="examples, and prompts of each set; by default those of the configs"
    )
    flags.add_argument("--seed", type=int, help="of all noise; by default that of training")
    flags.add_argument(
        "--split", help="of the data set; by default the config's data.validation_split"
    )
    flags.add_argument(
        "--parts",
        help="with commas: stages, chain, emoji, guidance; by default those of the first three "
        "that the stages can have",
    )
    flags.add_argument(
        "--out", type=command.path, default=Path("out/evaluation.json"), help="the file to write"
    )
    flags.add_argument(
        "--overwrite", action="store_true", help="replace other files of the same names"
    )
    flags.add_argument(
        "--classifier",
        type=command.path,
        help="file of the network that tells emoji apart; trained when it is first used",
    )
    command.add_parameters(flags)
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the flags, evaluates and writes the report; returns the exit code."""
    return command.run_command(parser(), lambda flags: print(run(flags)), arguments)


def run(flags: argparse.Namespace) -> Path:
    """Evaluates and writes the report; returns the path of the JSON. Flags are checked first."""
    from diffjax.build import matching, places, report
    from diffjax.core.files import storing, write_whole
    from diffjax.devices import mesh
    from diffjax.encoders.cache.cache import users_folder
    from diffjax.evaluation import plot
    from diffjax.images import png

    require(flags.num is None or flags.num > 0, "--num", flags.num, "at least 1")
    highest = 2**31 - 1
    in_range = flags.seed is None or 0 <= flags.seed <= highest
    require(in_range, "--seed", flags.seed, f"0 to {highest}")
    require(flags.split is None or bool(flags.split.strip()), "--split", flags.split, "name one")
    parts = flags.parts.split(",") if flags.parts is not None else []
    for part in parts:
        require(part in report.PARTS, "--parts", part, f"allowed: {', '.join(report.PARTS)}")
    require(flags.out.suffix == ".json", "--out", str(flags.out), "must end with .json")
    picture = flags.out.with_suffix(".png")
    for path in (flags.out, picture):
        free = not path.exists() or (flags.overwrite and not path.is_dir())
        require(free, "--out", str(path), "is there already; --overwrite replaces it")
    where = flags.where
    if len(where) == 1:
        shipped = str(where[0]) == SHIPPED and not where[0].exists()
        where = places.stage_dirs(None if shipped else where[0], flag="WHERE")
    mesh.keep_compilations()
    if matching.only_clip(where):
        matching.check_flags(parts, flags.classifier)
        clip = matching.load(where[0], flags.ema, flags.verify)
        found = matching.report(clip, flags.num, flags.seed, flags.split)
    else:
        loaded = report.load(where, flags.ema, flags.verify)
        asked = report.Asked(
            num=flags.num,
            seed=flags.seed,
            split=flags.split,
            classifier=flags.classifier or users_folder() / "emoji_classifier.safetensors",
        )
        found = report.report(loaded, asked, parts)
    with storing(flags.out):
        flags.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(flags.out, (json.dumps(finite(found), indent=1, sort_keys=True) + "\n").encode())
    curves = plot.curves_of(found.get("stages", []))
    if curves:
        png.write(picture, plot.draw(curves), None)
    return flags.out


def finite(value: Json) -> Json:
    """The value with null in place of numbers that JSON does not have, such as NaN."""
    if isinstance(value, dict):
        return {name: finite(child) for name, child in value.items()}
    if isinstance(value, list):
        return [finite(child) for child in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


if __name__ == "__main__":
    command.start(main)
