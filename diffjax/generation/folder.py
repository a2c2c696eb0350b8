"""The folder that pictures go to: their names, those that are there already, and a sheet of all.

A name is made of numbers alone, never of the prompt. What is there and is just what would be made
is kept; anything else of that name is an error unless it may be overwritten.
"""

import dataclasses
import itertools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image

import diffjax
from diffjax.core.errors import ConfigError, require
from diffjax.core.files import storing
from diffjax.generation import recipe
from diffjax.generation.chain import Cascade
from diffjax.generation.jobs import Job, name_of
from diffjax.images import film, png
from diffjax.images.sheet import contact_sheet

SHEET = "grid.png"
SHEET_METADATA = {"format": recipe.FORMAT, "kind": "contact sheet"}
# Later pictures are not on the sheet: it is to be looked at.
SHEET_CELLS = 100
TILE_PX = (128, 256)
HALF_WRITTEN = re.compile(
    r"\.(\d{4,}_seed\d+(_\d+px\.png|\.webp|\.gif)|grid\.png)\.(?P<process>\d{1,9})\.tmp"
)
CAPTION_CHARACTERS, WORD_CHARACTERS = 160, 18


@dataclasses.dataclass(frozen=True)
class Slot:
    """The files of one job.

    paths: of the pictures, small to large; recipes: what each says of itself, None for nothing;
    film: without its ending, None for no film. missing: the paths that are not there yet.
    words: what the sheet says of it.
    """

    job: Job
    paths: tuple[Path, ...]
    recipes: tuple[recipe.Recipe | None, ...]
    film: Path | None
    missing: frozenset[Path]
    words: str


def plan(
    out: Path,
    jobs: Sequence[Job],
    trained: Cascade,
    *,
    films: bool = False,
    metadata: bool = True,
    overwrite: bool = False,
) -> list[Slot]:
    """A slot for every job, in order; `out` is looked at and not touched.

    Raises:
      ConfigError: something else is there under one of the names, and not `overwrite`.
    """
    require(out.is_dir() or not out.exists(), "--out", str(out), "is no folder")
    slots = []
    for index, job in enumerate(jobs):
        stem = f"{index:04d}_seed{job.seed}"
        paths = tuple(out / f"{stem}_{origin.size_px}px.png" for origin in trained.origins)
        said = tuple(recipes_of(job, trained)) if metadata else (None,) * len(paths)
        missing = {
            path for path, one in zip(paths, said, strict=True) if _is_free(path, one, overwrite)
        }
        reel = out / stem if films else None
        if reel:
            ends = tuple(film.film_paths(reel))
            missing |= {path for path in ends if _is_free(path, said[-1], overwrite)}
        slots.append(Slot(job, paths, said, reel, frozenset(missing), words_of(job, trained)))
    _is_free(out / SHEET, SHEET_METADATA if metadata else None, overwrite)
    return slots


def words_of(job: Job, trained: Cascade) -> str:
    """The prompt, and what the class is called."""
    if job.label is None or trained.classes is None:
        return job.prompt
    return ", ".join(filter(None, (job.prompt, name_of(job.label, trained.classes))))


def recipes_of(job: Job, trained: Cascade) -> list[recipe.Recipe]:
    """What the picture of each stage is made of: the stages up to its own."""
    stages = [
        (origin, stage.settings)
        for origin, stage in zip(trained.origins, trained.stages, strict=True)
    ]
    made_with = {
        "diffjax": diffjax.__version__,
        "jax": jax.__version__,
        "platform": jax.devices()[0].platform,
    }
    return [
        recipe.Recipe(
            prompt=job.prompt,
            negative=job.negative,
            seed=job.seed,
            stages=tuple(upto),
            encoder=None if trained.encoder is None else trained.encoder.fingerprint,
            label=job.label,
            made_with=made_with,
        )
        for upto in itertools.accumulate([stage] for stage in stages)
    ]


def write(
    slot: Slot,
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    frames: Sequence[UInt8[np.ndarray, "_ _ 3"]] = (),
) -> None:
    """Write what is missing of a slot, each file whole or not at all.

    Raises:
      StorageError: the disk refuses.
    """
    folder = slot.paths[0].parent
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for path, picture, said in zip(slot.paths, pictures, slot.recipes, strict=True):
        if path in slot.missing:
            png.write(path, picture, _plain(said))
    if slot.film and slot.missing & set(film.film_paths(slot.film)):
        film.write(slot.film, frames, metadata=_plain(said))


def sweep(out: Path) -> None:
    """Take away half-written pictures of ours whose process is no more: it was killed."""
    for path in out.glob(".*.tmp"):
        left = HALF_WRITTEN.fullmatch(path.name)
        if left and not _lives(int(left["process"])):
            path.unlink(missing_ok=True)


def compared(path: Path, like: recipe.Recipe, slots: Sequence[Slot], stages: Cascade) -> str:
    """One line: whether the picture came out as it was, if just that was asked for."""
    for slot in slots:
        again = recipes_of(slot.job, stages)[-1]
        if again == dataclasses.replace(like, made_with=again.made_with):
            break
    else:
        return f"made with other settings or parameters than {path}"
    new = slot.paths[-1]
    try:
        levels = np.abs(png.read(path).astype(int) - png.read(new))
    except ValueError as error:
        return f"{new}: nothing to compare it with: {error}"
    if not levels.any():
        return f"{new}: the same as {path}, in every pixel"
    then, now = like.made_with, again.made_with
    other = [
        f"; {name} {then[name]} then, {now[name]} now" for name in now if then[name] != now[name]
    ]
    return (
        f"{new}: {np.count_nonzero(levels)} of {levels.size} values differ from {path}, "
        f"by at most {levels.max()} of 255{''.join(other)}"
    )


def write_sheet(out: Path, slots: Sequence[Slot]) -> Path:
    """The first pictures with their prompts on one sheet; returns its path."""
    shown = slots[:SHEET_CELLS]
    several = len({slot.job.seed for slot in slots}) > 1
    captions = [caption(slot.words) + (f" ({slot.job.seed})" if several else "") for slot in shown]
    least, most = TILE_PX
    width, _ = png.read_size(shown[0].paths[-1])
    tile_px = min(max(width, least), most)
    cells = [[thumbnail(png.read(path), tile_px) for path in slot.paths] for slot in shown]
    sheet = np.asarray(contact_sheet(cells, captions, tile_px=tile_px))
    png.write(out / SHEET, sheet, SHEET_METADATA if slots[0].recipes[0] else None)
    return out / SHEET


def thumbnail(picture: UInt8[np.ndarray, "_ _ 3"], side_px: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """The picture, shrunk by area if it is larger."""
    if picture.shape[0] <= side_px:
        return picture
    small = Image.fromarray(picture).resize((side_px, side_px), Image.Resampling.BOX)
    return np.asarray(small)


def caption(prompt: str) -> str:
    """The prompt as it can be written under a picture: not too long, and neither are its words."""
    line = " ".join("".join(c if c.isprintable() else " " for c in prompt).split())
    line = re.sub(rf"(\S{{{WORD_CHARACTERS}}})(?=\S)", r"\1 ", line)
    return line if len(line) <= CAPTION_CHARACTERS else line[: CAPTION_CHARACTERS - 4] + " ..."


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def _is_free(path: Path, said: recipe.Recipe | dict | None, overwrite: bool) -> bool:
    """Whether the file is to be written; not if it is there and says the same of itself."""
    if not path.is_symlink() and not path.exists():
        return True
    why = _other(path, _plain(said))
    if not why:
        return path.name == SHEET
    require(not path.is_dir(), "--out", str(path), "is a folder")
    if not overwrite:
        raise ConfigError(
            "--out", str(path), f"{why}; --overwrite replaces it, or give another folder"
        )
    return True


def _plain(said: recipe.Recipe | dict | None) -> dict[str, Any] | None:
    return recipe.to_json(said) if isinstance(said, recipe.Recipe) else said


def _other(path: Path, said: dict[str, Any] | None) -> str:
    """Why what is there is not the file that would be written; "" if it is."""
    if said is None:
        return "is there already, and without metadata nothing tells whose it is"
    try:
        if path.suffix == ".png":
            png.check_whole(path)
            found = png.read_metadata(path)
        else:
            found = film.read_metadata(path)
    except ValueError as error:
        return f"is there already, and {str(error).removeprefix(f'{path}: ')}"
    # both as JSON has them: no tuples, no subclasses
    found, wanted = ({} if x is None else json.loads(json.dumps(x)) for x in (found, said))
    for key in (*wanted, *recipe.OPTIONAL):
        if found.get(key) != wanted.get(key):
            return f"is there already, and is another picture, of another {key.replace('_', ' ')}"
    return ""
