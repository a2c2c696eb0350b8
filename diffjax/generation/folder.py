"""The folder that pictures are written to: their names, existing files, and a sheet of all.

File names contain numbers and never the prompt. An existing picture is kept if it is the one that
would be made. Any other file of the same name is an error, unless it may be overwritten.
"""

import dataclasses
import itertools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image

import diffjax
from diffjax.core.errors import ConfigError, require
from diffjax.core.files import storing
from diffjax.core.json_types import JsonObject
from diffjax.generation import best as best_lib
from diffjax.generation import parse, recipe
from diffjax.generation.best import Best
from diffjax.generation.chain import Cascade
from diffjax.generation.jobs import Job, name_of
from diffjax.images import film, png
from diffjax.images.sheet import contact_sheet
from diffjax.tasks.settings import SampleSettings

SHEET = "grid.png"
SHEET_METADATA: JsonObject = {"format": recipe.FORMAT, "kind": "contact sheet"}
# The sheet shows only the first pictures, so that it stays small enough to look at.
SHEET_CELLS = 100
TILE_PX = (128, 256)
HALF_WRITTEN = re.compile(
    r"\.(\d{4,}_seed\d+(_\d+px\.png|\.webp|\.gif)|grid\.png)\.(?P<process>\d{1,9})\.tmp"
)
CAPTION_CHARACTERS, WORD_CHARACTERS = 160, 18
# Fields of the metadata that messages call by another name.
CALLED = {
    "label": "class",
    "also": "list of prompts",
    "stages": "model or settings",
    "chosen": "choice among candidates",
    "clip": "CLIP",
}


@dataclasses.dataclass(frozen=True)
class Slot:
    """The files of one job.

    paths: of the pictures, small to large. recipes: the metadata of each, None for none. film: the
    path of the film without its ending, None for no film. missing: the paths that must be written.
    words: the caption on the sheet. candidates: the jobs of which the best is to be found; () if
    `job` is the one that is made. seed: the one that was asked for.
    """

    job: Job
    paths: tuple[Path, ...]
    recipes: tuple[recipe.Recipe | None, ...]
    film: Path | None
    missing: frozenset[Path]
    words: str
    seed: int
    candidates: tuple[Job, ...] = ()


def plan_files(
    out: Path,
    jobs: Sequence[Job],
    trained: Cascade,
    *,
    films: bool = False,
    metadata: bool = True,
    overwrite: bool = False,
    best: Best | None = None,
) -> list[Slot]:
    """A slot for every job, in order. The folder `out` is read but not changed.

    best: each job has candidates, of which the best is kept. If a file of it is there, it says
    which one that was.

    Raises:
      ConfigError: another file has one of the names, and `overwrite` is False.
    """
    require(out.is_dir() or not out.exists(), "--out", str(out), "is not a folder")
    slots = []
    for index, asked in enumerate(jobs):
        stem = f"{index:04d}_seed{asked.seed}"
        paths = tuple(out / f"{stem}_{origin.size_px}px.png" for origin in trained.origins)
        known = best_lib.known(best, asked, paths) if best is not None else None
        job, chosen, candidates = known or (asked, None, ())
        said = tuple(recipes_of(job, trained, chosen)) if metadata else (None,) * len(paths)
        missing = {
            path for path, one in zip(paths, said, strict=True) if _is_free(path, one, overwrite)
        }
        reel = out / stem if films else None
        if reel:
            ends = tuple(film.film_paths(reel))
            missing |= {path for path in ends if _is_free(path, said[-1], overwrite)}
        words = words_of(job, trained)
        slots.append(
            Slot(job, paths, said, reel, frozenset(missing), words, asked.seed, candidates)
        )
    _is_free(out / SHEET, SHEET_METADATA if metadata else None, overwrite)
    return slots


def words_of(job: Job, trained: Cascade) -> str:
    """The prompts and the name of the class, for a caption."""
    words = " AND ".join((job.prompt, *(f"{prompt}:{share:g}" for prompt, share in job.also)))
    if job.label is None or trained.classes is None:
        return words
    return ", ".join(filter(None, (words, name_of(job.label, trained.classes))))


def recipes_of(
    job: Job, trained: Cascade, chosen: recipe.Chosen | None = None
) -> list[recipe.Recipe]:
    """The recipe of the picture of each stage, which has the stages up to that one."""
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
            also=job.also,
            made_with=made_with,
            chosen=chosen,
            clip=None if trained.clip is None or not _by_clip(upto) else trained.clip.fingerprint,
            told=None if trained.teller is None else trained.teller.said(),
        )
        for upto in itertools.accumulate([stage] for stage in stages)
    ]


def _by_clip(stages: Sequence[tuple[recipe.Origin, SampleSettings]]) -> bool:
    """Whether a CLIP guided one of the stages."""
    return any(settings.clip_guidance for _, settings in stages)


def write(
    slot: Slot,
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    frames: Sequence[UInt8[np.ndarray, "_ _ 3"]] = (),
) -> None:
    """Writes the missing files of a slot, each completely or not at all.

    Raises:
      StorageError: the disk is full or fails.
    """
    folder = slot.paths[0].parent
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for path, picture, said in zip(slot.paths, pictures, slot.recipes, strict=True):
        if path in slot.missing:
            png.write(path, picture, _plain(said))
    if slot.film and slot.missing & set(film.film_paths(slot.film)):
        film.write(slot.film, frames, metadata=_plain(said))


def delete_half_written(out: Path) -> None:
    """Deletes half-written pictures that a killed process of ours left behind."""
    for path in out.glob(".*.tmp"):
        left = HALF_WRITTEN.fullmatch(path.name)
        if left and not _lives(int(left["process"])):
            path.unlink(missing_ok=True)


def compare(path: Path, like: recipe.Recipe, slots: Sequence[Slot], stages: Cascade) -> str:
    """A line that says whether the picture at `path`, of recipe `like`, was made again exactly."""
    for slot in slots:
        again = recipes_of(slot.job, stages)[-1]
        if again == dataclasses.replace(like, made_with=again.made_with, chosen=None):
            break
    else:
        return f"made with other settings or parameters than {path}"
    new = slot.paths[-1]
    try:
        levels = np.abs(png.read(path).astype(int) - png.read(new))
    except ValueError as error:
        return f"{new}: cannot be compared: {error}"
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
    """Writes a sheet of the first pictures with their prompts; returns its path."""
    shown = slots[:SHEET_CELLS]
    several = len({slot.seed for slot in slots}) > 1
    captions = [caption(slot.words) + (f" ({slot.seed})" if several else "") for slot in shown]
    least, most = TILE_PX
    width, _ = png.read_size(shown[0].paths[-1])
    tile_px = min(max(width, least), most)
    cells = [[thumbnail(png.read(path), tile_px) for path in slot.paths] for slot in shown]
    sheet = np.asarray(contact_sheet(cells, captions, tile_px=tile_px))
    png.write(out / SHEET, sheet, SHEET_METADATA if slots[0].recipes[0] else None)
    return out / SHEET


def thumbnail(picture: UInt8[np.ndarray, "_ _ 3"], side_px: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """The picture, shrunk by averaging areas if it is larger than `side_px`."""
    if picture.shape[0] <= side_px:
        return picture
    small = Image.fromarray(picture).resize((side_px, side_px), Image.Resampling.BOX)
    return np.asarray(small)


def caption(prompt: str) -> str:
    """The prompt as a caption: printable, shortened if it is long, with very long words broken."""
    line = " ".join("".join(c if c.isprintable() else " " for c in prompt).split())
    line = re.sub(rf"(\S{{{WORD_CHARACTERS}}})(?=\S)", r"\1 ", line)
    return line if len(line) <= CAPTION_CHARACTERS else line[: CAPTION_CHARACTERS - 4] + " ..."


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process belongs to another user
        return True
    return True


def _is_free(path: Path, said: recipe.Recipe | JsonObject | None, overwrite: bool) -> bool:
    """Whether the file must be written: not if it exists with the same metadata.

    Raises:
      ConfigError: another file is there, and `overwrite` is False.
    """
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


def _plain(said: recipe.Recipe | JsonObject | None) -> JsonObject | None:
    return recipe.to_json(said) if isinstance(said, recipe.Recipe) else said


def _other(path: Path, said: JsonObject | None) -> str:
    """The reason why an existing file is not the one that would be written; "" if it is."""
    if said is None:
        return "is there already, and without metadata nothing tells what it is"
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
    for key in (*wanted, *parse.OPTIONAL):
        if found.get(key) != wanted.get(key):
            what = CALLED.get(key, key.replace("_", " "))
            return f"is there already, and is a picture of another {what}"
    return ""
