"""A folder with the pictures that several systems made of the same prompts.

It holds `prompts.json`, a folder for each system with the files of `generation.folder`, and in
`pages` the keys of the pages that show them: which side is whose.
"""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from diffjax.core.errors import ConfigError, InputError, require
from diffjax.core.files import read_json, storing, write_whole
from diffjax.core.json_types import Json, JsonObject
from diffjax.generation import parse

PROMPTS, PAGES = "prompts.json", "pages"
COLUMNS = {"prompt": ("prompts", "prompt"), "category": ("category", "categories")}
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}"
# Names that Windows does not allow for a folder, and that of the folder of keys.
RESERVED = {"con", "prn", "aux", "nul", PAGES}
RESERVED |= {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}


class Prompt(NamedTuple):
    """A prompt and the category that its answers count for."""

    text: str
    category: str


@dataclasses.dataclass(frozen=True)
class Collection:
    """The prompts, and the seeds of the pictures of each."""

    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The rows of a CSV file with the columns "Prompts" and "Category"; others are ignored.

    Raises:
      ConfigError: there is no such file, it is not UTF-8 or CSV, a column is missing, or a row has
        no prompt, no category, or a prompt that is not allowed.
    """
    require(path.is_file(), "PROMPTS", str(path), "no such file")
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        numbered = [(rows.line_num, row) for row in rows if any(cell.strip() for cell in row)]
    except UnicodeDecodeError as error:
        raise ConfigError("PROMPTS", str(path), f"is not UTF-8 at byte {error.start}") from None
    except csv.Error as error:
        raise ConfigError("PROMPTS", str(path), f"is not CSV: {error}") from None
    require(len(numbered) > 1, "PROMPTS", str(path), "want a line of column names, then prompts")
    (_, header), *rest = numbered
    at = {name: _column(header, name, path) for name in COLUMNS}
    found = []
    for line, row in rest:
        cells = {name: row[i].strip() if i < len(row) else "" for name, i in at.items()}
        for name, cell in cells.items():
            require(bool(cell), f"line {line} of {path}", cell, f"has no {name}")
        wrong = parse.prompt_fault(cells["prompt"])
        require(not wrong, f"line {line} of {path}", cells["prompt"][:40], wrong)
        found.append(Prompt(cells["prompt"], cells["category"]))
    return tuple(found)


def _column(header: Sequence[str], name: str, path: Path) -> int:
    known = [cell.strip().casefold() for cell in header]
    for wanted in COLUMNS[name]:
        if wanted in known:
            return known.index(wanted)
    what = f"has no column {COLUMNS[name][0]!r}, only {', '.join(header)[:80]}"
    raise ConfigError("PROMPTS", str(path), what)


def names_of(places: Sequence[Path], given: str | None) -> list[str]:
    """A name for each system: those given with commas, or the names of the folders.

    Raises:
      ConfigError: a name is not one of a folder on every system, or two are equal.
    """
    names = given.split(",") if given is not None else [one.resolve().stem for one in places]
    require(len(names) == len(places), "--names", given, f"want {len(places)} with commas")
    for name in names:
        allowed = "want up to 40 letters, digits, _ and -; --names gives others"
        fits = re.fullmatch(NAME, name) and name.casefold() not in RESERVED
        require(bool(fits), "--names", name[:80], allowed)
    distinct = len({name.casefold() for name in names}) == len(names)
    require(distinct, "--names", ",".join(names), "two are equal; --names gives others")
    return names


def begin(folder: Path, wanted: Collection) -> None:
    """Writes which prompts and seeds the folder is of, or checks that it is of these.

    Raises:
      ConfigError: it is of others.
      StorageError: the disk is full or fails.
    """
    if (folder / PROMPTS).exists():
        there = read(folder)
        require(there == wanted, "--out", str(folder), "holds pictures of other prompts or seeds")
        return
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    said: JsonObject = {
        "format": 1,
        "prompts": [[one.text, one.category] for one in wanted.prompts],
        "seeds": [*wanted.seeds],
    }
    write_whole(folder / PROMPTS, (json.dumps(said, indent=1) + "\n").encode())


def read(folder: Path) -> Collection:
    """What `begin` wrote.

    Raises:
      InputError: there is none.
      StorageError: it is damaged.
    """
    remedy = "make the pictures anew in another folder"
    try:
        said = read_json(folder / PROMPTS, remedy)
    except FileNotFoundError:
        raise InputError(f"{folder}: holds no pictures of `diffjax.judge make`") from None
    prompts = []
    for one in _list(said.get("prompts")):
        match one:
            case [str(text), str(category)]:
                prompts.append(Prompt(text, category))
            case _:
                raise InputError(f"{folder / PROMPTS}: want pairs of prompt and category; {remedy}")
    seeds = [seed for seed in _list(said.get("seeds")) if type(seed) is int]
    if not prompts or not seeds or [*seeds] != said["seeds"]:
        raise InputError(f"{folder / PROMPTS}: has no prompts and seeds; {remedy}")
    return Collection(tuple(prompts), tuple(seeds))


def _list(value: Json | None) -> list[Json]:
    return value if isinstance(value, list) else []


def systems_in(folder: Path) -> list[str]:
    """The names of the systems that have pictures."""
    found = (one.name for one in folder.iterdir() if one.is_dir() and one.name != PAGES)
    return sorted(name for name in found if re.fullmatch(NAME, name))


def pictures_of(folder: Path, system: str, collection: Collection) -> list[list[Path]]:
    """For each prompt the files of its seeds, the largest of each cascade.

    Raises:
      InputError: some are missing, or are pictures of another prompt or seed.
    """
    sizes: dict[str, tuple[int, Path]] = {}
    for path in (folder / system).glob("*_seed*_*px.png"):
        match = re.fullmatch(r"(\d{4,}_seed\d+)_(\d{1,5})px\.png", path.name)
        if match and int(match[2]) > sizes.get(match[1], (0, path))[0]:
            sizes[match[1]] = int(match[2]), path
    found, missing, index = [], 0, 0
    largest = max((size for size, _ in sizes.values()), default=0)
    for prompt in collection.prompts:
        own = []
        for seed in collection.seeds:
            size, path = sizes.get(f"{index:04d}_seed{seed}", (0, folder))
            index += 1
            if size != largest or not size:
                missing += 1
                continue
            _check(path, prompt.text, seed)
            own.append(path)
        found.append(own)
    if missing:
        raise InputError(
            f"{folder / system}: lacks {missing} of {index} pictures; `diffjax.judge make` goes on"
        )
    return found


def _check(path: Path, prompt: str, seed: int) -> None:
    try:
        said = parse.read(path)
    except ValueError as error:
        raise InputError(str(error)) from None
    if said.prompt != prompt or (said.chosen.seed if said.chosen else said.seed) != seed:
        raise InputError(f"{path}: is a picture of another prompt or seed; make it anew")
