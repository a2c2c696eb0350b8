"""Writes a page on which a person says which of two sets of pictures fits a prompt better.

The page is one HTML file with a folder of pictures. It works without a network, also from a disk.
It does not say which system made which pictures: the files are named after their pixels, their
metadata are gone, and the key of the sides stays in the collection.
"""

import hashlib
import importlib.resources
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffjax.core.errors import InputError, require
from diffjax.core.files import storing, write_whole
from diffjax.core.json_types import Json, JsonObject
from diffjax.evaluation.judging import collection as collection_lib
from diffjax.evaluation.judging.collection import PAGES
from diffjax.images import png

INDEX, PICTURES = "index.html", "pictures"
QUESTION = "Which pictures fit the text better?"
MAX_QUESTION = 200


class Item(NamedTuple):
    """A question: a prompt, and the systems whose pictures are on the left and on the right."""

    prompt: int
    left: str
    right: str


def items_of(prompts: int, systems: Sequence[str], seed: int) -> list[Item]:
    """Each prompt with each pair of systems once, in a random order and on random sides."""
    draw = np.random.default_rng(seed)
    pairs = list(itertools.combinations(systems, 2))
    every = [(i, pair) for i in range(prompts) for pair in pairs]
    order, sides = draw.permutation(len(every)), draw.integers(2, size=len(every))
    return [
        Item(prompt, *(pair[::-1] if swapped else pair))
        for (prompt, pair), swapped in zip((every[i] for i in order), sides, strict=True)
    ]


def write(
    folder: Path,
    out: Path,
    systems: Sequence[str] = (),
    question: str = QUESTION,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Writes the page of a collection to `out`, and its key into the collection; returns the page.

    systems: by default all that have pictures.

    Raises:
      ConfigError: there are fewer than two systems, one is unknown, or another page is there.
      InputError: pictures are missing or damaged.
      StorageError: the disk is full or fails.
    """
    found = collection_lib.read(folder)
    there = collection_lib.systems_in(folder)
    systems = sorted(systems or there)
    for name in systems:
        require(name in there, "--systems", name, f"there are {', '.join(there) or 'none'}")
    right = len(set(systems)) == len(systems) >= 2
    require(right, "--systems", ",".join(systems), "a page compares two different ones or more")
    fits = 0 < len(question.strip()) <= MAX_QUESTION
    require(fits, "--question", question[:40], f"1 to {MAX_QUESTION} characters")
    items = items_of(len(found.prompts), systems, seed)
    index = out / INDEX
    free = overwrite or not index.exists()
    files = {name: collection_lib.pictures_of(folder, name, found) for name in systems}
    names = {name: _copied(files[name], out / PICTURES if free else None) for name in systems}
    shown: list[Json] = [
        {
            "prompt": found.prompts[one.prompt].text,
            "left": [*names[one.left][one.prompt]],
            "right": [*names[one.right][one.prompt]],
        }
        for one in items
    ]
    key: list[Json] = [
        [one.left, one.right, found.prompts[one.prompt].category, one.prompt] for one in items
    ]
    whole = json.dumps([question, shown, key], sort_keys=True)
    mark = hashlib.sha256(whole.encode()).hexdigest()
    text = html_of({"page": mark, "question": question, "items": shown})
    same = free or index.read_bytes() == text.encode()
    require(same, "--out", str(out), "holds another page; --overwrite replaces it")
    with storing(folder):
        (folder / PAGES).mkdir(exist_ok=True)
    said: JsonObject = {"format": 1, "page": mark, "systems": [*systems], "seed": seed}
    said |= {"question": question, "items": key}
    write_whole(folder / PAGES / f"{mark}.json", (json.dumps(said, indent=1) + "\n").encode())
    write_whole(index, text.encode())
    return index


def html_of(data: JsonObject) -> str:
    """The page, with the data as JSON in it. No text of the data is read as HTML."""
    text = json.dumps(data, ensure_ascii=True, sort_keys=True)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    template = importlib.resources.files(__package__) / "page.html"
    return template.read_text(encoding="utf-8").replace("{{data}}", text)


def _copied(files: Sequence[Sequence[Path]], into: Path | None) -> list[list[str]]:
    """The names of the pictures of each prompt, which are written to `into` without metadata.

    into: None only gives the names. One picture is in memory at a time.

    Raises:
      InputError: a picture is damaged.
      StorageError: the disk is full or fails.
    """
    if into is not None:
        with storing(into):
            into.mkdir(parents=True, exist_ok=True)
    return [[_copy(path, into) for path in row] for row in files]


def _copy(path: Path, into: Path | None) -> str:
    try:
        data = png.encode(png.read(path))
    except ValueError as error:
        raise InputError(str(error)) from None
    name = f"{hashlib.sha256(data).hexdigest()[:32]}.png"
    if into is not None and not ((into / name).is_file() and (into / name).read_bytes() == data):
        write_whole(into / name, data)
    return name
