"""python -m diffjax.sample --workdir runs/cascade --prompt "an openmoji drawing of a red apple"

    python -m diffjax.sample --workdir runs/digits --class 7 --seeds 0-3

Makes pictures from prompts or classes with trained stages, or from seeds alone where they are told
neither: a PNG for each picture and stage, and a sheet of all with their prompts. The metadata of
each PNG say what it was made of, and --like PICTURE.png makes it again. Pictures that are there
already are not made again, so an interrupted run can be continued. Exit codes: 0 done, 2 bad input,
5 storage, 143 terminated.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from diffjax.core import command
from diffjax.core.errors import ConfigError, require
from diffjax.generation import watch


def parser() -> argparse.ArgumentParser:
    """The flags."""
    from diffjax.generation import jobs

    flags = command.parser("sample", __doc__)
    command.add_stages(flags)
    flags.add_argument("--prompt", action="append", default=[], help="may be given many times")
    flags.add_argument("--prompts", type=command.path, help="a file with one prompt a line")
    flags.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        help="its name or number, as 7, seven, 0-9 or none; may be given many times",
    )
    flags.add_argument("--negative", help="a prompt that guidance moves away from")
    flags.add_argument("--seeds", help="as 0, 3,5 or 0-7: pictures per prompt; 0 by default")
    flags.add_argument(
        "--like",
        type=command.path,
        help="make this picture again; it must be of this command. Other flags change its settings",
    )
    flags.add_argument(
        "--anyway", action="store_true", help="--like even if the picture's parameters were others"
    )
    jobs.add_settings(flags)
    flags.add_argument(
        "--out", type=command.path, default=Path("out"), help="folder for the pictures"
    )
    flags.add_argument(
        "--overwrite", action="store_true", help="replace other files of the same names"
    )
    flags.add_argument(
        "--no-metadata", action="store_true", help="do not write into PNGs what they were made of"
    )
    flags.add_argument(
        "--film",
        action="store_true",
        help="also write a film of the denoising, as WebP and GIF; takes twice as long",
    )
    flags.add_argument(
        "--ema",
        help="average of the parameters: a name of train.ema, live, or a file that diffjax.ema or "
        "an export wrote; or one per stage, with commas",
    )
    flags.add_argument(
        "--verify",
        choices=("full", "size"),
        default="full",
        help="how checkpoints are checked: by the hash of every file, or by file sizes alone",
    )
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the flags, samples and writes the pictures; returns the exit code."""
    return command.run_command(parser(), lambda flags: print(run(flags)), arguments)


def run(flags: argparse.Namespace) -> Path:
    """Makes and writes the pictures that are not there yet; returns the path of the sheet."""
    from diffjax.build import loading
    from diffjax.devices import mesh
    from diffjax.generation import folder, jobs, rows
    from diffjax.logs.progress import Progress
    from diffjax.tasks.settings import SampleSettings

    like = read_like(flags.like) if flags.like else None
    wanted = asked(flags, like)
    dirs = loading.stage_dirs(flags.workdir, flags.stages)
    # this finds the mistakes that do not depend on the stages, before the stages are loaded
    jobs.settings_of(flags, [SampleSettings()] * (len(like.stages) if like else len(dirs)))
    mesh.keep_compilations()
    stages = load(flags, dirs, like)
    settings = jobs.settings_of(flags, [stage.settings for stage in stages.stages])
    todo = jobs_of(wanted, flags.classes, stages)
    guided = any(one.guidance_weight != 1 for one in settings)
    require(
        wanted.negative is None or guided,
        "--negative",
        wanted.negative,
        "has no effect without guidance; give --guidance above 1",
    )
    stages = stages.with_settings(settings)
    if flags.film:
        watch.check(stages)
    slots = folder.plan(
        flags.out,
        todo,
        stages,
        films=flags.film,
        metadata=not flags.no_metadata,
        overwrite=flags.overwrite,
    )
    folder.sweep(flags.out)
    missing = [slot for slot in slots if slot.missing]
    with Progress(len(slots), warm=rows.rows_per_call()) as progress:
        progress.skip(len(slots) - len(missing))
        made = rows.make(stages, [slot.job for slot in missing])
        for slot, pictures in zip(missing, made, strict=True):
            reel = watch.frames(stages, slot.job, pictures) if flags.film else ()
            folder.write(slot, pictures, reel)
            progress.tick()
    if like:
        print(folder.compare(flags.like, like, slots, stages))
    return folder.write_sheet(flags.out, slots)


class Wanted(NamedTuple):
    """What is asked for, as far as it can be checked before the stages are known.

    label: that of the picture of --like; None for none.
    """

    prompts: list[str]
    seeds: list[int]
    negative: str | None
    label: int | None


def asked(flags: argparse.Namespace, like) -> Wanted:
    """What the flags say; what they leave open is taken from the recipe `like`."""
    from diffjax.generation import jobs

    prompts = jobs.read_prompts(flags.prompt, flags.prompts)
    seeds = jobs.parse_seeds(flags.seeds) if flags.seeds is not None else [0]
    negative = jobs.check_prompt("--negative", flags.negative) if flags.negative else None
    if like:
        prompts = prompts or ([like.prompt] if like.encoder else [])
        seeds = seeds if flags.seeds is not None else [like.seed]
        negative = like.negative if flags.negative is None else negative
    return Wanted(prompts, seeds, negative, like.label if like else None)


def jobs_of(wanted: Wanted, classes: Sequence[str], stages) -> list:
    """The jobs, once it is known what the stages are told.

    Raises:
      ConfigError: a prompt or a class for stages that are told none; one is missing; or there is no
        such class.
    """
    from diffjax.generation import jobs

    prompts, known, name = wanted.prompts, stages.classes, stages.stages[0].task.name
    instead = "give --class" if known else "give --seeds alone"
    for flag, value in (("--prompt", next(iter(prompts), None)), ("--negative", wanted.negative)):
        fits = stages.encoder is not None or value is None
        require(fits, flag, str(value)[:40], f"{name} is told no text: {instead}")
    fits = not classes or known is not None
    require(fits, "--class", "".join(classes[:1]), f"{name} is told no class")
    labels: list[int | None] = [None]
    if known is not None:
        found = [label for text in classes for label in jobs.parse_classes(text, known)]
        labels = [*found] or [known.num if wanted.label is None else wanted.label]
        told = found or prompts or wanted.label is not None
        require(bool(told), "--class", "", f"give one: 0 to {known.num - 1}, or {jobs.NO_CLASS}")
    elif stages.encoder is not None:
        what = "give at least one prompt, or --prompts FILE, or --like"
        require(bool(prompts), "--prompt", "", what)
    return jobs.jobs_of(prompts or [""], wanted.seeds, wanted.negative, labels)


def read_like(path: Path):
    """The recipe in a picture's metadata.

    Raises:
      ConfigError: the picture has none, or one that this program cannot have written.
    """
    from diffjax.generation import recipe

    try:
        return recipe.read(path)
    except ValueError as error:
        raise ConfigError("--like", str(path), str(error).removeprefix(f"{path}: ")) from None


def load(flags: argparse.Namespace, dirs: Sequence[Path], like):
    """The stages of the workdirs, or with `like` those of them that made that picture."""
    from diffjax.build import loading

    if like is None:
        return loading.load(dirs, flags.ema, flags.verify)
    return loading.load_like(like, dirs, flags.ema, flags.verify, flags.anyway)


if __name__ == "__main__":
    command.start(main)
