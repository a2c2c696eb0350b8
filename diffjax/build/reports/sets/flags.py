"""The flags of diffjax.evaluate that are about sets of pictures, and which of them go together."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from diffjax.core import command
from diffjax.core.errors import ConfigError, require
from diffjax.core.limits import MAX_SEED

PART, LITE0, SAFETENSORS = "sets", "lite0", ".safetensors"


def add_sets(flags: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    flags.add_argument(
        "--extractor",
        default=LITE0,
        help="of features: lite0, inception:FILE, dinov2:FOLDER or clip:WHERE",
    )
    flags.add_argument(
        "--clip",
        metavar="WHERE",
        help="a CLIP that says how well pictures fit their captions: a workdir, a folder, a name",
    )
    flags.add_argument(
        "--against",
        metavar="SOURCE",
        help="the real pictures: a data source, or a file that --statistics wrote; by default the "
        "pictures of the captions",
    )
    flags.add_argument(
        "--any-count",
        action="store_true",
        help="compare with all real pictures, and not with as many as are made",
    )
    flags.add_argument(
        "--statistics", type=command.path, metavar="FILE", help="write those of the made pictures"
    )
    flags.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="NAME=VALUE,VALUE",
        help="every value of a setting, such as guidance=0,1,2; may be given several times",
    )


def seeds_of(text: str | None) -> tuple[int, ...]:
    """The seeds of "3", "0,5" or "0-7"; () for None.

    Raises:
      ConfigError: the text has another form, or a number is not allowed.
    """
    from diffjax.generation import jobs

    if text is None:
        return ()
    try:
        only = int(text)
    except ValueError:
        pass
    else:
        require(0 <= only <= MAX_SEED, "--seed", only, f"0 to {MAX_SEED}")
    try:
        seeds = tuple(jobs.parse_seeds(text))
    except ConfigError:
        allowed = f"numbers from 0 to {MAX_SEED}, as 3 or 0,5 or 0-7"
        raise ConfigError("--seed", text, allowed) from None
    require(len(set(seeds)) == len(seeds), "--seed", text, "names a seed twice")
    return seeds


def check(flags: argparse.Namespace, parts: Sequence[str]) -> None:
    """Refuses flags that would have no effect, or that contradict each other.

    Raises:
      ConfigError: there is one; names it.
    """
    if parts and PART not in parts:
        check_unused(flags, f"is of the part {PART}, which --parts leaves out")
    if flags.sweep:
        given = ",".join(parts)
        require(set(parts) <= {PART}, "--parts", given, f"a sweep has {PART} alone: leave it out")
        why = "a sweep makes a set for each combination: leave it out"
        require(flags.statistics is None, "--statistics", str(flags.statistics), why)
    path = flags.statistics
    if path is not None:
        ending = f"must end with {SAFETENSORS}"
        require(path.suffix == SAFETENSORS, "--statistics", str(path), ending)
        free = not path.exists() or (flags.overwrite and not path.is_dir())
        require(free, "--statistics", str(path), "is there already; --overwrite replaces it")


def check_unused(flags: argparse.Namespace, why: str) -> None:
    """Refuses each flag of sets that is given.

    Raises:
      ConfigError: there is one.
    """
    given: dict[str, str | Path | bool | None] = {
        "--extractor": flags.extractor if flags.extractor != LITE0 else None,
        "--clip": flags.clip,
        "--against": flags.against,
        "--any-count": flags.any_count or None,
        "--statistics": flags.statistics,
        "--sweep": ",".join(flags.sweep) or None,
    }
    for flag, value in given.items():
        require(value is None, flag, str(value), why)
