"""CLIP's tokenizer: byte pairs of words, merged by rank (Sennrich et al. 2016).

The ids are those of OpenAI's and open_clip's SimpleTokenizer.
"""

import dataclasses
import functools
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from diffjax.encoders.clip.cleaning import clean
from diffjax.encoders.tokenizer import CutCounter

START, END = "<start_of_text>", "<end_of_text>"
# Of OpenAI's list of merges only so many were used.
MOST_MERGES = 49_152 - 256 - 2
ENDING = "</w>"  # marks the last unit of a word
_FIXED = re.compile(f"{START}|{END}|'s|'t|'re|'ve|'m|'ll|'d", re.IGNORECASE)

Merge = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class BytePairs:
    """A tokenizer. ranks: of each merge, the first merged first. units: the id of each unit.

    The ids of bytes, of bytes that end a word and of merges come first, then START and END.
    fingerprint: the sha256 of the merges.
    """

    ranks: Mapping[Merge, int] = dataclasses.field(repr=False, compare=False)
    units: Mapping[str, int] = dataclasses.field(repr=False, compare=False)
    fingerprint: str
    cut: CutCounter = dataclasses.field(default_factory=CutCounter, compare=False)
    known: dict[str, list[int]] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @property
    def vocabulary(self) -> int:
        """The number of ids."""
        return len(self.units)

    @property
    def end(self) -> int:
        """The id that ends a text, the highest."""
        return self.units[END]

    def ids(self, text: str, max_length: int) -> list[int]:
        """START, the units of the text, END: at most `max_length` ids; the text is cut if need be.

        Raises:
          ValueError: not even START and END fit.
        """
        if max_length < 2:
            raise ValueError(f"max_length={max_length}: it must be at least 2, for start and end")
        found = [self.units[START], *self.units_of(text)]
        if len(found) < max_length:
            return [*found, self.end]
        self.cut.note(len(found) + 1, max_length, text)
        return [*found[: max_length - 1], self.end]

    def padded(self, text: str, max_length: int) -> Int[np.ndarray, " l"]:
        """`ids`, and zeros up to `max_length`."""
        row = np.zeros(max_length, np.int32)
        found = self.ids(text, max_length)
        row[: len(found)] = found
        return row

    def units_of(self, text: str) -> list[int]:
        """The ids of the units of a text, without START and END."""
        return [one for word in words(clean(text)) for one in self._of_word(word)]

    def _of_word(self, word: str) -> list[int]:
        if word not in self.known:
            if word in (START, END):
                found = [word]
            else:
                found = merged([byte_names()[byte] for byte in word.encode()], self.ranks)
            self.known[word] = [self.units[unit] for unit in found]
        return self.known[word]


def from_merges(merges: Sequence[Merge]) -> BytePairs:
    """The tokenizer of these merges, the first of which have the lowest ids."""
    merges = list(merges)[:MOST_MERGES]
    names = list(byte_names().values())
    units = [*names, *(name + ENDING for name in names), *map("".join, merges), START, END]
    lines = "\n".join(" ".join(merge) for merge in merges)
    return BytePairs(
        ranks={merge: rank for rank, merge in enumerate(merges)},
        units={unit: number for number, unit in enumerate(units)},
        fingerprint=hashlib.sha256(lines.encode()).hexdigest(),
    )


def words(text: str) -> Iterator[str]:
    """A cleaned text in words: contractions, runs of letters, single digits, runs of the rest."""
    place = 0
    while place < len(text):
        if fixed := _FIXED.match(text, place):
            yield fixed.group()
            place = fixed.end()
            continue
        kind, end = kind_of(text[place]), place + 1
        while kind != "N" and end < len(text) and kind_of(text[end]) == kind:
            end += 1
        if kind != " ":
            yield text[place:end]
        place = end


@functools.lru_cache(maxsize=4096)
def kind_of(character: str) -> str:
    """ "L" for a letter, "N" for a number, " " for a blank, "" for the rest.

    U+0345, a mark below Greek letters, is dropped like a blank: the original's pattern ignores case
    and takes it for neither a letter nor the rest.
    """
    if character.isspace() or character == "\u0345":
        return " "
    category = unicodedata.category(character)[0]
    return category if category in "LN" else ""


def merged(word: list[str], ranks: Mapping[Merge, int]) -> list[str]:
    """The units of a word, the last of which is marked as its end; see `merge`."""
    return merge([*word[:-1], word[-1] + ENDING], ranks)


def merge(word: list[str], ranks: Mapping[Merge, int]) -> list[str]:
    """The units of a word: of all neighbours that may be merged, those of the lowest rank first."""
    while len(word) > 1:
        pairs = set(itertools.pairwise(word))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        word = joined(word, best)
    return word


def joined(word: Sequence[str], pair: Merge) -> list[str]:
    """The word with each occurrence of the pair as one unit, from the left."""
    found: list[str] = []
    for unit in word:
        if found and (found[-1], unit) == pair:
            found[-1] += unit
        else:
            found.append(unit)
    return found


@functools.cache
def byte_names() -> dict[int, str]:
    """A printable character for each byte: itself if it is one, else one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + i) for i, byte in enumerate(others)
    }
