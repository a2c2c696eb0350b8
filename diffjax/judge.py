"""python -m diffjax.judge make prompts.csv runs/a runs/b --out judged
python -m diffjax.judge page judged --out page
python -m diffjax.judge tally judged answers_*.json --out tally.json

Lets people compare systems. `make` draws the prompts of a CSV file, which has the columns "Prompts"
and "Category", with each system, and goes on where it was interrupted. `page` writes a page that
works without a network and does not say which system is on which side. `tally` counts the files
that people saved on the page (docs/judging.md). Exit codes: 0 done, 2 bad input, 5 storage, 143
terminated.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from diffjax.core import command
from diffjax.core.errors import require

SHIPPED = "shipped"
SEEDS = 2**31 - 1


def parser() -> argparse.ArgumentParser:
    """The flags."""
    from diffjax.evaluation.judging.page import QUESTION
    from diffjax.generation import jobs

    flags = command.parser("judge", __doc__)
    commands = flags.add_subparsers(dest="command", required=True)
    make_ = commands.add_parser("make", help="draw the prompts with one system or more")
    make_.add_argument("prompts", type=command.path, help="CSV file with prompts and categories")
    make_.add_argument(
        "where", nargs="+", type=command.path, metavar="WHERE", help="trained cascades, or shipped"
    )
    make_.add_argument("--names", help="of the systems, with commas; else those of the folders")
    make_.add_argument("--num", type=int, default=8, help="pictures of a prompt")
    make_.add_argument("--seed", type=int, default=0, help="of the first; the others follow it")
    jobs.add_settings(make_)
    make_.add_argument("--out", type=command.path, default=Path("judged"), help="folder to write")
    command.add_parameters(make_)
    page_ = commands.add_parser("page", help="write the page")
    page_.add_argument("pictures", type=command.path, help="the folder that `make` wrote")
    page_.add_argument("--systems", help="which, with commas; by default all")
    page_.add_argument("--question", default=QUESTION, help="what people are asked")
    page_.add_argument("--seed", type=int, default=0, help="of the order and of the sides")
    page_.add_argument("--out", type=command.path, default=Path("page"), help="folder to write")
    tally_ = commands.add_parser("tally", help="count the answers")
    tally_.add_argument("pictures", type=command.path, help="the folder that `make` wrote")
    tally_.add_argument("answers", nargs="+", type=command.path, help="files saved on the page")
    tally_.add_argument("--seed", type=int, default=0, help="of the bootstrap intervals")
    tally_.add_argument(
        "--out", type=command.path, default=Path("tally.json"), help="the file to write"
    )
    for one in (page_, tally_):
        one.add_argument("--overwrite", action="store_true", help="replace other files")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the flags and does what they say; returns the exit code."""
    return command.run_command(parser(), lambda flags: print(run(flags)), arguments)


def run(flags: argparse.Namespace) -> Path:
    """Draws, writes the page or counts; returns the path of what was written."""
    require(0 <= flags.seed <= SEEDS, "--seed", flags.seed, f"0 to {SEEDS}")
    return {"make": make, "page": page, "tally": count}[flags.command](flags)


def make(flags: argparse.Namespace) -> Path:
    """Draws the pictures that are not there yet; returns the folder."""
    from diffjax.build.stages import loading, places
    from diffjax.devices import mesh
    from diffjax.evaluation.judging import collection
    from diffjax.generation import folder, jobs, making
    from diffjax.generation.wanted import Wanted, check_guidance, jobs_of

    prompts = collection.read_prompts(flags.prompts)
    most = jobs.MAX_PICTURES // len(prompts)
    require(1 <= flags.num <= most, "--num", flags.num, f"1 to {most} for {len(prompts)} prompts")
    last = flags.seed + flags.num - 1
    require(last <= SEEDS, "--seed", flags.seed, f"at most {SEEDS - flags.num + 1}")
    names = collection.names_of(flags.where, flags.names)
    seeds = range(flags.seed, last + 1)
    dirs = []
    for where in flags.where:
        shipped = str(where) == SHIPPED and not where.exists()
        dirs.append(places.stage_dirs(None if shipped else where, flag="WHERE"))
    mesh.keep_compilations()
    wanted = Wanted([one.text for one in prompts], seeds)
    for name, stages_of in zip(names, dirs, strict=True):
        stages = loading.load(stages_of, flags.ema, flags.verify)
        stages.text_reader()
        settings = jobs.settings_of(flags, [stage.settings for stage in stages.stages])
        check_guidance(wanted, settings, [stage.task.guide for stage in stages.stages])
        stages = stages.with_settings(settings)
        slots = folder.plan_files(flags.out / name, jobs_of(wanted, stages), stages)
        collection.begin(flags.out, collection.Collection(prompts, tuple(seeds)))
        folder.delete_half_written(flags.out / name)
        print(f"{name}:", flush=True)
        folder.write_sheet(flags.out / name, making.write_missing(slots, stages))
    return flags.out


def page(flags: argparse.Namespace) -> Path:
    """Writes the page; returns its path."""
    from diffjax.evaluation.judging import page as pages

    systems = flags.systems.split(",") if flags.systems is not None else []
    return pages.write(
        flags.pictures, flags.out, systems, flags.question, flags.seed, flags.overwrite
    )


def count(flags: argparse.Namespace) -> Path:
    """Counts the answers, prints a table and writes the numbers; returns the path."""
    from diffjax.core.files import storing, write_whole
    from diffjax.evaluation.judging import tally

    free = not flags.out.exists() or (flags.overwrite and not flags.out.is_dir())
    require(free, "--out", str(flags.out), "is there already; --overwrite replaces it")
    files = [tally.read_answers(path) for path in flags.answers]
    found = tally.tally(tally.read_key(flags.pictures, files[0].page), files, flags.seed)
    for line in tally.table(found):
        print(line)
    with storing(flags.out):
        flags.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(
        flags.out, (json.dumps(dataclasses.asdict(found), indent=1, sort_keys=True) + "\n").encode()
    )
    return flags.out


if __name__ == "__main__":
    command.start(main)
