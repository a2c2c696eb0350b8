"""Makes a report on a trained CLIP: zero-shot classification and retrieval on held-out pictures."""

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

import diffjax
from diffjax.build.guides.trained_clip import LoadedClip
from diffjax.build.inputs import columns, reading
from diffjax.build.kinds import contrastive
from diffjax.build.stages import places
from diffjax.core.errors import ConfigError, require
from diffjax.core.json_types import Json, JsonObject
from diffjax.data import readers
from diffjax.data.record import RecordSource, captions_at, name_at
from diffjax.data.sources.chosen import Chosen
from diffjax.evaluation import examples, matching

# The classes of a data set without labels are its names; so many of them by default.
CLASSES = 100
BLOCK = 512
# For a class without captions of its own (Radford et al. 2021, sec. 3.1.4).
TEMPLATE = "a photo of a {}."


def report(loaded: LoadedClip, num: int | None, seed: int | None, split: str | None) -> JsonObject:
    """The numbers, and everything on which they depend.

    num: the most examples of retrieval, and classes of a data set without labels.

    Raises:
      ConfigError: there is no such split.
      BadData: a record cannot be read.
    """
    options = loaded.options
    split = split or options.data.validation_split
    found: JsonObject = {
        "retrieval": retrieval(loaded, split, num or options.train.evaluate_examples),
        "zero_shot": zero_shot(loaded, split, num),
    }
    for part, numbers in found.items():
        _say(part, numbers)
    return {
        "format": 1,
        "asked": {"num": num, "seed": seed, "split": split},
        "made_with": {
            "diffjax": diffjax.__version__,
            "jax": jax.__version__,
            "platform": jax.devices()[0].platform,
        },
        "of": [
            {
                "name": options.stage,
                "size_px": loaded.clip.config.size_px,
                "step": int(loaded.step) if str(loaded.step).isdecimal() else None,
                "average": loaded.average,
                "checkpoint": loaded.clip.fingerprint,
            }
        ],
        "data": options.data.name,
        **found,
    }


def retrieval(loaded: LoadedClip, split: str, count: int) -> JsonObject:
    """How often the right text and picture are found among those of `count` examples."""
    records = examples.Spread(reading.records_held_out(loaded.options, split), count)
    seen = features_of(loaded, records)
    text = loaded.clip.of_captions(seen.captions).astype(np.float64)
    rows = matching.retrieved(seen.image, text, seen.captions)
    return {"examples": len(seen.image), "chance": 1 / len(seen.image), **matching.shares(rows)}


def zero_shot(loaded: LoadedClip, split: str, num: int | None) -> JsonObject:
    """How often a picture's class is the one that fits best, among classes that have texts.

    The classes are the labels of the data set if it has some; `num` is then the most pictures.
    Otherwise they are the names of the split's records, of which at most `num` are taken, CLASSES
    by default and the same on every machine.
    """
    records = reading.records_held_out(loaded.options, split)
    labels: Sequence[str] = tuple(getattr(records, "classes", ()))
    texts: dict[str, tuple[str, ...]]
    if labels:
        texts = {name: (TEMPLATE.format(name.replace("_", " ")),) for name in labels}
        seen = features_of(loaded, examples.Spread(records, num or len(records)), labelled=True)
        right = [labels[label] for label in seen.labels]
    else:
        chosen, texts = named(records, num or CLASSES)
        if len(texts) < 2:
            return {"why_not": "the records have neither labels nor names"}
        seen = features_of(loaded, Chosen(records, np.array(chosen), "by names"))
        right = list(seen.names)
    every = [(name, text) for name, captions in texts.items() for text in captions]
    vectors = loaded.clip.of_captions([text for _, text in every]).astype(np.float64)
    classes, names = matching.class_features(vectors, [name for name, _ in every])
    rows = matching.classified(seen.image, classes, names, right)
    result: JsonObject = {"classes": len(names), "pictures": len(right), "texts": len(every)}
    return {**result, "chance": 1 / len(names), **matching.shares(rows)}


class Seen(NamedTuple):
    """The unit vectors of pictures, and what their records say."""

    image: Float[np.ndarray, "n e"]
    names: tuple[str, ...]
    captions: tuple[str, ...]
    labels: tuple[int, ...]


def features_of(loaded: LoadedClip, records: RecordSource, labelled: bool = False) -> Seen:
    """The vectors of all records, BLOCK of whose pictures are in memory at a time.

    Raises:
      BadData: a record cannot be read, or too many are broken.
    """
    options = loaded.options
    needed = [columns.picture_of(options), *([readers.label] if labelled else [])]
    parts = []
    for first in range(0, len(records), BLOCK):
        rows = np.arange(first, min(first + BLOCK, len(records)))
        block = Chosen(records, rows, f"from {first}")
        found = examples.read(block, needed, reading.max_bad_fraction_of(options))
        image = loaded.clip.of_pictures(np.asarray(found.columns["image"])).astype(np.float64)
        labels = tuple(map(int, found.columns["label"])) if labelled else ()
        parts.append(Seen(image, found.names, found.captions, labels))
    image, *others = zip(*parts, strict=True)
    said = (tuple(itertools.chain.from_iterable(column)) for column in others)
    return Seen(np.concatenate(image), *said)


def named(records: RecordSource, most: int) -> tuple[list[int], dict[str, tuple[str, ...]]]:
    """(the records of at most `most` names, all captions of each name).

    Names are taken in the order of their hashes; records without a name or a caption are left out.
    """
    rows: dict[str, list[int]] = {}
    for index in range(len(records)):
        name = name_at(records, index) or str(records[index].get("name", ""))
        if name and captions_at(records, index):
            rows.setdefault(name, []).append(index)
    key = lambda name: hashlib.sha256(name.encode()).digest()  # noqa: E731
    chosen = sorted(rows, key=key)[:most]
    captions = {
        name: tuple(text for index in rows[name] for text in captions_at(records, index) if text)
        for name in chosen
    }
    return [index for name in chosen for index in rows[name]], captions


def _say(part: str, numbers: Json) -> None:
    if isinstance(numbers, dict):
        for name, value in numbers.items():
            if isinstance(value, dict):
                print(f"{part}: {name} {value['share']:.4g} of {value['of']}", flush=True)


def only_clip(where: Sequence[Path]) -> bool:
    """Whether the places hold a CLIP, which is evaluated alone.

    Raises:
      ConfigError: several places, of which one holds a CLIP.
    """
    are = [contrastive.is_contrastive(places.options_of(place)) for place in where]
    if any(are) and len(are) > 1:
        raise ConfigError("WHERE", str(where[are.index(True)]), "a CLIP is evaluated alone")
    return any(are)


def check_flags(parts: Sequence[str], classifier: Path | None) -> None:
    """Refuses what can be asked of other stages and has no effect on a CLIP's report.

    Raises:
      ConfigError: parts of a report, or a classifier of drawings.
    """
    allowed = "a CLIP has retrieval and zero_shot, and always both: leave it out"
    require(not parts, "--parts", ",".join(parts), allowed)
    unused = "a CLIP's report names drawings by the CLIP itself: leave it out"
    require(classifier is None, "--classifier", str(classifier), unused)
