"""Texts as token ids for a network that has a text transformer of its own, such as GLIDE's."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from diffjax.encoders import gpt2, hub
from diffjax.encoders.clip import bpe, vocabulary
from diffjax.encoders.tokenizer import CutCounter
from diffjax.models.words import NO_TOKEN

# GPT-2's 50,000 merges, in a file of that name beside a checkpoint or on the hub.
GPT2, ON_THE_HUB, MERGES = "gpt2", "openai-community/gpt2", "merges.txt"
FILES = ("vocab.bpe.gz", "vocab.bpe", MERGES)


@runtime_checkable
class Units(Protocol):
    """A tokenizer, without tokens for the start and the end of a text."""

    @property
    def fingerprint(self) -> str:
        """The sha256 of the merges."""
        ...

    @property
    def cut(self) -> CutCounter:
        """Counts the texts that were cut."""
        ...

    @property
    def vocabulary(self) -> int:
        """The number of ids."""
        ...

    def units_of(self, text: str) -> list[int]:
        """The ids of the units of a text."""
        ...


@dataclasses.dataclass(frozen=True)
class TokenReader:
    """Reads prompts for such a network. name: of the vocabulary. length: places for tokens.

    width: 0, as it makes no embeddings.
    """

    name: str
    length: int
    units: Units = dataclasses.field(repr=False)
    width: int = 0

    @property
    def fingerprint(self) -> str:
        """The sha256 of the merges."""
        return self.units.fingerprint

    def ids(self, text: str) -> Int[np.ndarray, " l"]:
        """The ids of a text, and NO_TOKEN at the places that are left; a long text is cut."""
        found = self.units.units_of(text)
        if len(found) > self.length:
            self.units.cut.note(len(found), self.length, text)
        row = np.full(self.length, NO_TOKEN, np.int32)
        row[: len(found)] = found[: self.length]
        return row

    def encode(self, texts: Sequence[str]) -> Int[np.ndarray, "b l"]:
        """The ids of each text."""
        return np.stack([self.ids(text) for text in texts])


def load(name: str) -> Units:
    """The tokenizer "gpt2", one of `clip.vocabulary`, or that of a file of the merges of either.

    Raises:
      ValueError: there is none, or the file is damaged; one line that says what to do.
    """
    file = find(name)
    return _loaded(file, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _loaded(file: Path, changed_ns: int) -> Units:
    merges = vocabulary.read(file, gpt2.MOST_MERGES)
    of_clip = any(bpe.ENDING in second for _, second in merges)
    return bpe.from_merges(merges) if of_clip else gpt2.from_merges(merges)


def find(name: str) -> Path:
    """The file of merges that `name` means; "gpt2" and "openai" may download it.

    Raises:
      ValueError: there is no such file.
    """
    if name != GPT2:
        return vocabulary.find(name, tuple(dict.fromkeys((*FILES, *vocabulary.FILES))))
    try:
        return hub.fetch_file(ON_THE_HUB, MERGES)
    except ValueError as error:
        raise ValueError(f"vocabulary {GPT2!r}: name its file, {FILES[0]}: {error}") from None


def beside(file: Path) -> str:
    """The vocabulary in the folder of a file, or else "gpt2"."""
    return next((str(one) for one in map(file.parent.joinpath, FILES) if one.is_file()), GPT2)
