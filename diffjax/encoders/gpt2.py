"""GPT-2's tokenizer of byte pairs, with which GLIDE reads texts (Radford et al. 2019, sec. 2.2).

A blank belongs to the word after it. GLIDE makes texts lower case first.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence

from diffjax.encoders.clip.bpe import Merge, byte_names, kind_of, merge
from diffjax.encoders.tokenizer import CutCounter

MOST_MERGES = 50_000
# Of the original: the bytes, the merges, and the token that ends a text, which GLIDE pads with.
VOCABULARY = 256 + MOST_MERGES + 1
_FIXED = re.compile("'s|'t|'re|'ve|'m|'ll|'d")


@dataclasses.dataclass(frozen=True)
class BlankPairs:
    """A tokenizer. ranks: of each merge, the first merged first. units: the id of each unit.

    The ids of bytes come first, then those of merges, then one more. fingerprint: the sha256 of the
    merges.
    """

    ranks: Mapping[Merge, int] = dataclasses.field(repr=False, compare=False)
    units: Mapping[str, int] = dataclasses.field(repr=False, compare=False)
    fingerprint: str
    cut: CutCounter = dataclasses.field(default_factory=CutCounter, compare=False)

    @property
    def vocabulary(self) -> int:
        """The number of ids."""
        return len(self.units) + 1

    def units_of(self, text: str) -> list[int]:
        """The ids of the units of a text."""
        found: list[int] = []
        for word in words(text.lower()):
            units = merge([byte_names()[byte] for byte in word.encode()], self.ranks)
            found += [self.units[unit] for unit in units]
        return found


def from_merges(merges: Sequence[Merge]) -> BlankPairs:
    """The tokenizer of these merges, the first of which have the lowest ids."""
    merges = list(merges)[:MOST_MERGES]
    units = [*byte_names().values(), *map("".join, merges)]
    lines = "\n".join(" ".join(pair) for pair in merges)
    return BlankPairs(
        ranks={pair: rank for rank, pair in enumerate(merges)},
        units={unit: number for number, unit in enumerate(units)},
        fingerprint=hashlib.sha256(lines.encode()).hexdigest(),
    )


def words(text: str) -> Iterator[str]:
    """A text in words: contractions, and runs of letters, of digits, of the rest, or of blanks.

    A single blank before a word is part of it. Of several, all but the last are a word alone.
    """
    place = 0
    while place < len(text):
        fixed = _FIXED.match(text, place)
        end = fixed.end() if fixed else _end_of_word(text, place)
        yield text[place:end]
        place = end


def _end_of_word(text: str, place: int) -> int:
    start = place
    if text[place] == " " and place + 1 < len(text) and not text[place + 1].isspace():
        start += 1
    blanks = text[start].isspace()
    kind, end = _kind(text[start]), start + 1
    while end < len(text) and _kind(text[end]) == kind:
        end += 1
    if blanks and end < len(text) and end - start > 1:
        return end - 1  # the last blank goes with the next word
    return end


def _kind(character: str) -> str:
    if character.isspace():
        return " "
    kind = kind_of(character)
    return "" if kind == " " else kind
