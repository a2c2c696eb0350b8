"""Opens the extractor that a text means."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from diffjax.core.errors import InputError
from diffjax.evaluation.extractors import clip, lite0
from diffjax.evaluation.extractors.extractor import Extractor


class Kind(NamedTuple):
    """A kind of extractors. place: what follows its name; alone: whether nothing may follow."""

    open: Callable[[str], Extractor]
    place: str
    alone: bool = False


KINDS: dict[str, Kind] = {
    "lite0": Kind(lambda file: lite0.load(Path(file) if file else None), "FILE", alone=True),
    "clip": Kind(clip.load, "WHERE"),
}


def open_extractor(text: str) -> Extractor:
    """The extractor called KIND or KIND:PLACE, such as "lite0" or "clip:FOLDER".

    Raises:
      InputError: there is no such kind, its place is missing, or what is there cannot be used.
    """
    name, colon, place = text.partition(":")
    kind = KINDS.get(name)
    if kind is None or (bool(colon) and not place):
        raise InputError(f"extractor {text!r}: want one of {', '.join(forms())}")
    if not place and not kind.alone:
        raise InputError(f"extractor {text!r} has no weights: want {name}:{kind.place}")
    return kind.open(place)


def forms() -> list[str]:
    """What `open_extractor` reads."""
    alone = [name for name, kind in KINDS.items() if kind.alone]
    return alone + [f"{name}:{kind.place}" for name, kind in KINDS.items()]
