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
from diffjax.evaluation.judging.collection import PAGES, Collection
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
    pictures = {name: _encoded(folder, name, found) for name in systems}
    names = {
        system: [[_name(one) for one in row] for row in pictures[system]] for system in pictures
    }
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
    index = out / INDEX
    other = index.exists() and index.read_bytes() != text.encode()
    require(
        overwrite or not other, "--out", str(out), "holds another page; --overwrite replaces it"
    )
    with storing(out):
        (out / PICTURES).mkdir(parents=True, exist_ok=True)
        (folder / PAGES).mkdir(exist_ok=True)
    for system in systems:
        for row in pictures[system]:
            for data in row:
                path = out / PICTURES / _name(data)
                if not path.exists() or path.read_bytes() != data:
                    write_whole(path, data)
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


def _encoded(folder: Path, system: str, found: Collection) -> list[list[bytes]]:
    """The pictures of each prompt as PNGs without metadata.

    Raises:
      InputError: one is missing or damaged.
    """
    try:
        return [
            [png.encode(png.read(path)) for path in row]
            for row in collection_lib.pictures_of(folder, system, found)
        ]
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from None


def _name(data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()[:32]}.png"
