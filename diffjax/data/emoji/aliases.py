"""Other names of emoji, from the keywords of the `emoji` package, as further captions."""

import functools
from collections import Counter

import emoji

from diffjax.data.emoji.drawings import Drawing, named_codes
from diffjax.data.emoji.phrases import article, captions, noun_phrase, tone_names

_MOST_BEARERS = 2  # an alias of more emoji says too little


def all_captions(drawing: Drawing) -> tuple[str, ...]:
    """The captions of a drawing; with an alias two more, of which the last names no style."""
    own = captions(drawing.name, drawing.style, is_flag=drawing.is_flag)
    alias = aliases().get(drawing.name)
    if alias is None:
        return own
    return (*own, f"{article(drawing.style)} {drawing.style} drawing of {alias}", alias)


@functools.cache
def aliases() -> dict[str, str]:
    """A phrase such as "an apple" for each name that has an alias of plain words.

    No alias is the phrase of another emoji. Flags, buttons, arrows and skin tones have none.
    """
    named = named_codes()
    phrases = {noun_phrase(name).lower() for name in named}
    bearers = Counter(
        alias for entry in emoji.EMOJI_DATA.values() for alias in set(entry.get("alias", ()))
    )
    found: dict[str, str] = {}
    for entry in emoji.EMOJI_DATA.values():
        name = entry["en"].strip(":").replace("\u2019", "'")
        if name not in named or tone_names(name) or Drawing(name, "", named[name], "").is_flag:
            continue
        if "button" in name or "arrow" in name:
            continue
        for alias in entry.get("alias", ()):
            word = alias.strip(":")
            plain = all(part.isalpha() for part in word.split("_")) and len(word) > 2
            if not plain or bearers[alias] > _MOST_BEARERS or word in named:
                continue
            phrase = noun_phrase(word)
            if phrase.lower() not in phrases:
                found.setdefault(name, phrase)
    return found
