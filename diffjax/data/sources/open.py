"""A data set by its name: one source, or a mixture of several.

folder:DIR  tar:GLOB  parquet:GLOB  tfds:NAME  hf:NAME  svg:DIR  iconify:DIR
fake:COUNT  emoji/SIZE  emoji_styles/SIZE  digits  NAME (as tfds:NAME)
A+B         all records of both
A*2+B       the records of A twice as often as those of B
"""

import difflib
import functools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffjax.data.record import NoSplit, RecordSource
from diffjax.data.sources import chosen, digits, fake, folder, huggingface, parquet, tar, tfds
from diffjax.data.sources.files import expand
from diffjax.data.sources.mixture import Mixture
from diffjax.data.sources.vector import iconify, svg
from diffjax.images.colour import WHITE

FAKE_SEEDS = {"train": 0, "validation": 1, "test": 2}  # of made-up pictures, by their split
IMAGE_KEY, CAPTION_KEY = "image", "captions"  # of prepared data sets, where nothing else is said
_SPLIT = re.compile(r"(\w+)(?:\[(\d*)(%?):(\d*)(%?)\])?")
_WEIGHT = re.compile(r"\*\s*(\d+(?:\.\d*)?|\.\d+)\s*$")


@dataclass(frozen=True)
class Wanted:
    """What of a data set is read; "" for a key leaves the field out, where records have fields.

    split: "train", "validation", "test", or a slice such as "train[:100]". validation: the share
    of a source without splits that is kept out of training. captions: "auto", "folder" or "none",
    see `folder.py`. size_px and ground: of what is drawn here. vector_key: a field with a vector,
    of a prepared data set.
    """

    split: str = "train"
    size_px: int = 64
    ground: str = WHITE
    image_key: str = IMAGE_KEY
    caption_key: str = CAPTION_KEY
    captions: str = "auto"
    validation: float = 0.0
    names: Sequence[str] = ()
    data_dir: str | Path | None = None
    vector_key: str = ""


def open_source(name: str, wanted: Wanted | None = None) -> RecordSource:
    """The records of a data set, pictures left encoded.

    Raises:
      ValueError: there is no such thing, or nothing in it; one line that says what is allowed.
    """
    wanted = wanted or Wanted()
    parts = split_mixture(name)
    opened = [_open_one(part, wanted) for part, _ in parts]
    if len(parts) == 1 and parts[0][1] == 1:
        return opened[0]
    return Mixture(opened, [weight for _, weight in parts])


def split_mixture(name: str) -> list[tuple[str, float]]:
    """The parts of a mixture with their weights.

    A `+` divides only where a kind of source stands behind it, so that paths may have one. A
    weight stands at the end of a part.
    """
    kinds = "|".join(KINDS)
    parts = re.split(rf"\+(?=\s*(?:(?:{kinds}):|emoji/|emoji_styles/|fake/|digits\b))", name)
    return [_weighed(part.strip()) for part in parts]


def _weighed(part: str) -> tuple[str, float]:
    found = _WEIGHT.search(part)
    if found is None:
        return part, 1.0
    weight = float(found.group(1))
    if not weight > 0:
        raise ValueError(f"{part!r}: the weight must be above 0")
    return part[: found.start()].strip(), weight


def _open_one(name: str, wanted: Wanted) -> RecordSource:
    kind, colon, where = name.partition(":")
    if not colon and name.split("/")[0] in ("fake", "digits"):
        kind, _, where = name.partition("/")
        colon = ":"
    if colon and kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        meant = f"; did you mean {near[0]}:?" if near else ""
        raise ValueError(f"no kind of source {kind!r}: {', '.join(KINDS)}{meant}")
    if not colon:
        return _tfds(name, wanted)
    if not where and kind != "digits":
        raise ValueError(f"{name!r} names nothing after the colon")
    try:
        return KINDS[kind](where, wanted)
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror or error}") from None


def _folder(where: str, wanted: Wanted) -> RecordSource:
    root = Path(where).expanduser()
    base, cut = _split_of(wanted.split)
    if folder.has_splits(root) or not root.is_dir():
        return cut(folder.open_folder(root, base, wanted.captions))
    whole = folder.open_folder(root, "train", wanted.captions)
    return _narrowed(whole, base, cut, wanted)


def _tar(where: str, wanted: Wanted) -> RecordSource:
    return _of_hash(tar.open_tars(expand(where), index_folder()), wanted)


def _parquet(where: str, wanted: Wanted) -> RecordSource:
    keys = _named_keys(wanted)
    return _of_hash(
        parquet.open_parquet(expand(where), image_key=keys[0], caption_key=keys[1]), wanted
    )


def _huggingface(where: str, wanted: Wanted) -> RecordSource:
    image, caption = _named_keys(wanted)
    base, cut = _split_of(wanted.split)
    names = huggingface.split_names(where)
    opened = functools.partial(
        huggingface.open_huggingface, where, image_key=image, caption_key=caption
    )
    if base in names and (base != "train" or "validation" in names):
        return cut(opened(base))
    if base in ("train", "validation") and "train" in names:
        return _narrowed(opened("train"), base, cut, wanted)
    raise NoSplit(f"hf:{where}: has no split {base!r}, only {', '.join(names)}")


def _svg(where: str, wanted: Wanted) -> RecordSource:
    return _of_hash(svg.open_svg(Path(where).expanduser(), wanted.size_px, wanted.ground), wanted)


def _iconify(where: str, wanted: Wanted) -> RecordSource:
    opened = iconify.open_icons(Path(where).expanduser(), wanted.size_px, wanted.ground)
    return _of_hash(opened, wanted)


def _tfds(where: str, wanted: Wanted) -> RecordSource:
    return tfds.open_source(
        where,
        wanted.split,
        wanted.data_dir,
        names=wanted.names,
        image_key=wanted.image_key,
        caption_key=wanted.caption_key,
        vector_key=wanted.vector_key,
    )


def _emoji(where: str, wanted: Wanted) -> RecordSource:
    return _tfds(f"emoji/{where}", wanted)


def _fake(where: str, wanted: Wanted) -> RecordSource:
    if not where.isdigit() or int(where) < 1:
        raise ValueError(f"fake:{where}: want fake:COUNT, COUNT > 0")
    base, cut = _split_of(wanted.split)
    if wanted.validation:
        return _of_hash(fake.Shapes(int(where), wanted.size_px), wanted)
    if base not in FAKE_SEEDS:
        raise NoSplit(f"made-up pictures have no split {base!r}, only {', '.join(FAKE_SEEDS)}")
    return cut(fake.Shapes(int(where), wanted.size_px, FAKE_SEEDS[base]))


def _digits(where: str, wanted: Wanted) -> RecordSource:
    if where:
        raise ValueError(f"digits has no part {where!r}")
    return _of_hash(digits.Digits(), wanted)


KINDS: dict[str, Callable[[str, Wanted], RecordSource]] = {
    "folder": _folder,
    "tar": _tar,
    "parquet": _parquet,
    "tfds": _tfds,
    "hf": _huggingface,
    "svg": _svg,
    "iconify": _iconify,
    "emoji": _emoji,
    "fake": _fake,
    "digits": _digits,
}


def index_folder() -> Path:
    """Where indices of tars are kept: below $DIFFJAX_CACHE_DIR, or the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("DIFFJAX_CACHE_DIR") or f"{base}/diffjax").expanduser() / "indices"


def _named_keys(wanted: Wanted) -> tuple[str, str]:
    """(image, captions): "" where the key is the usual one, and the source looks for its own."""
    image, caption = wanted.image_key, wanted.caption_key
    return image if image != IMAGE_KEY else "", caption if caption != CAPTION_KEY else ""


def _of_hash(source: RecordSource, wanted: Wanted) -> RecordSource:
    """A split of a source that has none of its own."""
    base, cut = _split_of(wanted.split)
    return _narrowed(source, base, cut, wanted)


def _narrowed(
    source: RecordSource, base: str, cut: Callable[[RecordSource], RecordSource], wanted: Wanted
) -> RecordSource:
    narrowed = cut(chosen.split_by_hash(source, base, wanted.validation))
    return chosen.by_names(narrowed, wanted.names) if wanted.names else narrowed


def _split_of(split: str) -> tuple[str, Callable[[RecordSource], RecordSource]]:
    """The split's name, and what cuts the slice out of it."""
    found = _SPLIT.fullmatch(split.strip())
    if found is None:
        raise NoSplit(f"split {split!r}: want a name, or a slice such as train[:100]")
    base, first, first_share, last, last_share = found.groups()

    def cut(source: RecordSource) -> RecordSource:
        if not first and not last:
            return source
        ends = [
            None if not end else len(source) * int(end) // 100 if share else int(end)
            for end, share in ((first, first_share), (last, last_share))
        ]
        return chosen.sliced(source, *ends)

    return base, cut
