"""Assigns drawings to splits by a hash of their names, so that other drawings do not matter."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from diffjax.data.emoji.drawings import STYLES, Drawing
from diffjax.data.emoji.lexicon import PROFESSIONS
from diffjax.data.emoji.phrases import base_name, tone_names

SPLITS = ("train", "validation", "test", "compositional", "style")

_TRAIN_PERCENT, _VALIDATION_PERCENT = 92, 4  # the rest is test
_ONE_PAIR_IN = 8  # this share of the pairs of profession and skin tone is held out
_ONE_NAME_IN = 25  # for this share of the names, one of the two drawings is held out

# Names that may have the same picture are in the same split: man, woman and neutral;
_WHO = re.compile(
    r"^(?:woman_and_man|(?:wo)?m[ae]n|person|people)_|_(?:wo)?man_(?:wo)?man|_person_person|_blond_hair"
)
# families with the same silhouette;
_FAMILY = re.compile(r"family_.*")
# and flags that are equal or nearly equal.
_SAME_FLAG = {
    "Bouvet_Island": "Norway",
    "British_Indian_Ocean_Territory": "Diego_Garcia",
    "Ceuta_&_Melilla": "Spain",
    "Clipperton_Island": "France",
    "Heard_Island_&_McDonald_Islands": "Australia",
    "Indonesia": "Monaco",
    "Romania": "Chad",
    "St._Martin": "France",
    "Svalbard_&_Jan_Mayen": "Norway",
    "U.S._Outlying_Islands": "United_States",
}


def split_of(name: str, style: str, *, has_both_styles: bool = True) -> str:
    """The split of one drawing.

    All drawings of names that may have the same picture are in the same one of `train`,
    `validation` and `test`. `compositional` holds out pairs of profession and skin tone, for all
    genders. `style` holds out one drawing of a name whose other drawing is in `train`.
    """
    pair = profession_and_tone(name)
    if pair and hash_bucket("compositional", *pair, count=_ONE_PAIR_IN) == 0:
        return "compositional"
    kin = kin_of(name)
    percent = hash_bucket("division", kin, count=100)
    if percent >= _TRAIN_PERCENT:
        return "validation" if percent < _TRAIN_PERCENT + _VALIDATION_PERCENT else "test"
    chosen = has_both_styles and hash_bucket("style", kin, count=_ONE_NAME_IN) == 0
    if chosen and style == STYLES[hash_bucket("held out", kin, count=len(STYLES))]:
        return "style"
    return "train"


def assign_splits(drawings: Sequence[Drawing]) -> dict[str, list[Drawing]]:
    """The drawings of each split, in the given order; a split may be empty."""
    drawn = Counter(drawing.name for drawing in drawings)
    drawn_once = {kin_of(name) for name, times in drawn.items() if times < len(STYLES)}
    split: dict[str, list[Drawing]] = {name: [] for name in SPLITS}
    for drawing in drawings:
        both = kin_of(drawing.name) not in drawn_once
        split[split_of(drawing.name, drawing.style, has_both_styles=both)].append(drawing)
    return split


def kin_of(name: str) -> str:
    """A text that is the same for all names that may have the same picture."""
    return _SAME_FLAG.get(name) or _FAMILY.sub("family", _WHO.sub("", name))


def profession_and_tone(name: str) -> tuple[str, str] | None:
    """("firefighter", "dark") of `woman_firefighter_dark_skin_tone`; None without both."""
    tones = tone_names(name)
    profession = base_name(name).removeprefix("man_").removeprefix("woman_")
    return (profession, tones[0]) if len(tones) == 1 and profession in PROFESSIONS else None


def hash_bucket(*key: str, count: int) -> int:
    """A hash of `key` in [0, count), the same on every machine and in every version of Python."""
    digest = hashlib.sha256("/".join(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") % count
