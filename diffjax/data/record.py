"""What a record is, and the rule by which captions are read from it."""

import re
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float

# One example. A source may leave out any of these keys:
#   image     bytes: the picture, still encoded
#   captions  tuple of str: texts about it, any number
#   name      str: what the source calls it, for choosing records and for messages
#   label     int: its class
# and any vectors of numbers, by names of their own
Record: TypeAlias = Mapping[str, object]

MAX_CAPTION_CHARACTERS = 10_000
_SURROGATES = re.compile("[\ud800-\udfff]")

# A batch: named arrays, a row per example.
Batch: TypeAlias = Mapping[str, np.ndarray]


class BadRecord(ValueError):
    """A field of a record has a wrong value. The message does not name the record."""


class NoSplit(ValueError):
    """A data set has no such split, or no record in it; one line."""


@runtime_checkable
class RecordSource(Protocol):
    """Random access to records. To be used by worker processes, a source must pickle.

    A source may know more. `captions(index)` is the captions of a record without its picture, for
    those who want no more. `name(index)` is its name. `captioned()` is whether it has captions.
    `classes` are the names of the labels. `fingerprint()` is a string that is equal for equal
    records and costs no reading of them; see `fingerprint_of`. `identity()` is one that is equal
    for copies on other machines too. `unchecked` is whether its files are other people's.
    """

    def __len__(self) -> int:
        """The number of records."""
        ...

    def __getitem__(self, index: int) -> Record:
        """The record at `index` in [0, len)."""
        ...


def clean(text: str) -> str:
    """The caption without blanks around it, which is the form used everywhere in diffjax.

    A blank caption becomes "", the null text: it trains as unconditional and is never encoded. NUL
    becomes a blank, a very long caption loses its end, and half of a surrogate pair, which JSON may
    hold and no file, becomes a replacement character.
    """
    text = text[:MAX_CAPTION_CHARACTERS].replace("\0", " ").strip()
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def captions_of(record: Record) -> tuple[str, ...]:
    """The cleaned captions of a record, () if it has none.

    Raises:
      BadRecord: they are not a sequence of strings.
    """
    found = record.get("captions", ())
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise BadRecord(f"captions {str(found)[:40]!r}: want a sequence of strings")
    if not all(isinstance(text, str) for text in found):
        raise BadRecord(f"captions {str(found)[:40]!r}: want strings")
    return tuple(clean(text) for text in found)


def first_caption(record: Record) -> str:
    """The first caption, "" if there is none."""
    return next(iter(captions_of(record)), "")


def image_of(record: Record) -> bytes:
    """The encoded picture; BadRecord if the record has none."""
    found = record.get("image")
    if not isinstance(found, bytes):
        raise BadRecord(f"no picture among the fields {sorted(record)}")
    return found


def label_of(record: Record) -> int:
    """The class; BadRecord if the record has none."""
    found = record.get("label")
    if not isinstance(found, int | np.integer):
        raise BadRecord(f"no class label among the fields {sorted(record)}")
    return int(found)


def vector_of(record: Record, name: str, width: int) -> Float[np.ndarray, " d"]:
    """The field `name`, `width` numbers; BadRecord if they are not that."""
    found = np.asarray(record.get(name, ()))
    if found.shape != (width,) or found.dtype.kind not in "fiu":
        there = f"{found.dtype} {found.shape}" if name in record else f"none in {sorted(record)}"
        raise BadRecord(f"{name}: want {width} numbers, there is {there}")
    return found.astype(np.float32)


def captions_at(source: RecordSource, index: int) -> tuple[str, ...]:
    """`captions_of` the record at `index`, if possible without reading its picture.

    Raises:
      BadRecord: they are not a sequence of strings, or of a kind of its own if they cannot be read;
        names the index.
    """
    try:
        return captions_of({"captions": stored_captions(source, index)})
    except BadRecord as error:
        raise type(error)(f"record {index}: {error}") from None


def stored_captions(source: RecordSource, index: int) -> object:
    """The captions as the source has them, without the picture where it can."""
    read = getattr(source, "captions", None)
    return source[index].get("captions", ()) if read is None else read(index)


def name_at(source: RecordSource, index: int) -> str:
    """The name of the record at `index`, "" where the source tells none without reading."""
    read = getattr(source, "name", None)
    return "" if read is None else read(index)


def fingerprint_of(source: RecordSource) -> str | None:
    """A string that distinguishes the records of this source from others; None if it has none."""
    read = getattr(source, "fingerprint", None)
    return None if read is None else read()


def identity_of(source: RecordSource) -> str | None:
    """What tells these records from others, wherever a copy of them lies; None if unknown."""
    read = getattr(source, "identity", None)
    return fingerprint_of(source) if read is None else read()
