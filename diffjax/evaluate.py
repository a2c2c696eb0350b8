"""python -m diffjax.evaluate runs/emoji --num 64 --out emoji.json

Evaluates trained stages on pictures that they were not trained on. WHERE is the folder of a stage
or of a cascade, "shipped", or several stages, smallest first; of a CLIP, it reports zero-shot
classification and retrieval; of pictures, such as folder:DIR, how far they are from those of
--against. Writes all numbers, with what they depend on, as JSON, and a plot as a PNG beside it.
docs/evaluation.md explains the numbers. Exit codes: 0 done, 2 bad input, 5 storage, 143 terminated.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffjax.build.reports.sets import flags as set_flags
from diffjax.core import command
from diffjax.core.errors import require
from diffjax.core.json_types import Json, JsonObject

if TYPE_CHECKING:
    from diffjax.build.reports.loaded import Asked

SHIPPED = "shipped"


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = command.parser("evaluate", __doc__)
    flags.add_argument(
        "where",
        nargs="+",
        type=command.path,
        metavar="WHERE",
        help="workdirs, exports, or shipped; or a source of pictures, such as folder:DIR",
    )
    flags.add_argument(
        "--num", type=int, help="examples, and prompts of each set; by default those of the configs"
    )
    flags.add_argument(
        "--seed",
        help="of all noise; by default that of training. Several, as 0,1 or 0-2, make sets of "
        "pictures whose numbers have a spread; the other parts have the first",
    )
    flags.add_argument(
        "--split", help="of the data set; by default the config's data.validation_split"
    )
    flags.add_argument(
        "--parts",
        help="with commas: stages, chain, sets, emoji, guidance, bits; by default those of the "
        "first four that the stages can have",
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
    set_flags.add_sets(flags)
    command.add_parameters(flags)
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the flags, evaluates and writes the report; returns the exit code."""
    return command.run_command(parser(), lambda flags: print(run(flags)), arguments)


def run(flags: argparse.Namespace) -> Path:
    """Evaluates and writes the report; returns the path of the JSON. Flags are checked first."""
    from diffjax.build.guides import trained_clip
    from diffjax.build.reports import matching, report
    from diffjax.build.reports.sets import folder, sweep
    from diffjax.build.stages import places, priors
    from diffjax.devices import mesh

    seeds = set_flags.seeds_of(flags.seed)
    require(flags.split is None or bool(flags.split.strip()), "--split", flags.split, "name one")
    parts = flags.parts.split(",") if flags.parts is not None else []
    for part in parts:
        require(part in report.PARTS, "--parts", part, f"allowed: {', '.join(report.PARTS)}")
    set_flags.check(flags, parts)
    axes = sweep.axes_of(flags.sweep)
    require(flags.out.suffix == ".json", "--out", str(flags.out), "must end with .json")
    for path in (flags.out, flags.out.with_suffix(".png")):
        free = not path.exists() or ((flags.overwrite or bool(axes)) and not path.is_dir())
        require(free, "--out", str(path), "is there already; --overwrite replaces it")
    where, asked = flags.where, asked_of(flags, seeds)
    mesh.keep_compilations()
    if len(where) == 1 and folder.is_source(where[0]):
        folder.check_flags(flags)
        write(flags.out, report.of_pictures(str(where[0]), asked))
        return flags.out
    if len(where) == 1:
        shipped = str(where[0]) == SHIPPED and not where[0].exists()
        where = places.stage_dirs(None if shipped else where[0], flag="WHERE")
    if matching.only_clip(where):
        matching.check_flags(parts, flags.classifier)
        set_flags.check_unused(flags, "is of stages that make pictures, and this is a CLIP")
        clip = trained_clip.load(where[0], flags.ema, flags.verify)
        write(flags.out, matching.report(clip, flags.num, asked.seed, flags.split))
        return flags.out
    if priors.only_prior(where):
        priors.check_flags(parts, flags.classifier)
        set_flags.check_unused(flags, "is of stages that make pictures, and this is a prior")
        prior = priors.load(where[0], flags.ema, flags.verify)
        write(flags.out, priors.report(prior, flags.num, asked.seed, flags.split))
        return flags.out
    loaded = report.load(where, flags.ema, flags.verify)
    if axes:
        begun = None if flags.overwrite else flags.out
        for found in report.swept(loaded, asked, axes, begun):
            write(flags.out, found)
    else:
        write(flags.out, report.report(loaded, asked, parts))
    return flags.out


def asked_of(flags: argparse.Namespace, seeds: tuple[int, ...]) -> "Asked":
    """How the flags want the report to be made."""
    from diffjax.build.reports.report import Asked
    from diffjax.encoders.cache.cache import users_folder

    return Asked(
        num=flags.num,
        seed=seeds[0] if seeds else None,
        split=flags.split,
        classifier=flags.classifier or users_folder() / "emoji_classifier.safetensors",
        seeds=seeds,
        extractor=flags.extractor,
        clip=flags.clip,
        against=flags.against,
        any_count=flags.any_count,
        statistics=flags.statistics,
    )


def write(path: Path, found: JsonObject) -> None:
    """Writes a report as JSON, and its plot beside it: losses by noise level, or a sweep.

    Raises:
      StorageError: the disk is full or fails.
    """
    from diffjax.core.files import storing, write_whole
    from diffjax.evaluation import pareto, plot
    from diffjax.images import png

    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(finite(found), indent=1, sort_keys=True) + "\n").encode())
    picture = path.with_suffix(".png")
    curves = plot.curves_of(found.get("stages", []))
    if curves:
        png.write(picture, plot.draw(curves), None)
    drawn = pareto.of_sweep(found.get("sweep"))
    if drawn is not None:
        png.write(picture, drawn, None)


def finite(value: Json) -> Json:
    """The value with null in place of numbers that JSON does not have, such as NaN."""
    if isinstance(value, dict):
        return {name: finite(child) for name, child in value.items()}
    if isinstance(value, list):
        return [finite(child) for child in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


if __name__ == "__main__":
    command.start(main)
