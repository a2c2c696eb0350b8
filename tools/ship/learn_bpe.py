"""Learns the merges of the emoji captions and writes diffjax/encoders/clip/emoji_merges.txt.

    python -m tools.ship.learn_bpe

The words are those of the captions that training sees, each counted as often as it occurs. Of all
pairs of neighbours the most frequent is merged first (Sennrich et al. 2016); of equally frequent
ones the first in the order of their characters.
"""

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from diffjax.data.captions import from_data_set
from diffjax.encoders.clip import bpe, vocabulary
from diffjax.encoders.clip.cleaning import clean

MERGES = 1024


def learn(captions: Iterable[str], count: int) -> list[bpe.Merge]:
    """The first `count` merges; fewer if no pair occurs twice."""
    names = bpe.byte_names()
    counts = Counter(word for text in captions for word in bpe.words(clean(text)))
    words = {word: [names[byte] for byte in word.encode()] for word in counts}
    words = {word: [*units[:-1], units[-1] + bpe.ENDING] for word, units in words.items()}
    merges: list[bpe.Merge] = []
    while len(merges) < count:
        pairs: Counter[bpe.Merge] = Counter()
        for word, units in words.items():
            for pair in itertools.pairwise(units):
                pairs[pair] += counts[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        words = {word: bpe.joined(units, best) for word, units in words.items()}
    return merges


def main() -> None:
    merges = learn(from_data_set("emoji/64", "train"), MERGES)
    lines = ["#version: 0.2 - merges of the captions of emoji/64", *map(" ".join, merges)]
    file: Path = vocabulary.find(vocabulary.EMOJI)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{file}: {len(merges)} merges")


if __name__ == "__main__":
    main()
