"""Where a TFDS data set keeps its captions: a key, what stands there, and how texts are read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow_datasets as tfds

from diffjax.data.record import BadRecord


@dataclass(frozen=True)
class TextField:
    """A field of texts: the keys that lead to it, and its classes' names if it holds classes."""

    path: tuple[str, ...]
    classes: tuple[str, ...] | None = None

    def read(self, raw: Mapping[str, object]) -> tuple[str, ...]:
        """The texts of a decoded record; BadRecord if one is not UTF-8."""
        value: object = raw
        for key in self.path:
            # A sequence of dicts comes as a dict of lists, and may come as a list of dicts.
            value = [item[key] for item in value] if isinstance(value, list) else value[key]  # type: ignore[index]
        return tuple(text for item in _flat(value) if (text := self._text(item)) is not None)

    def _text(self, value: object) -> str | None:
        if self.classes is not None:
            assert isinstance(value, int | np.integer)
            number = int(value)  # -1: a record whose class is not told
            return self.classes[number].replace("_", " ") if number >= 0 else None
        if not isinstance(value, bytes):
            return str(value)
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise BadRecord(
                f"the caption {value[:40]!r} is not UTF-8 ({error.reason} at byte {error.start}); "
                "prepare the data set with its texts decoded"
            ) from None


def text_field(features: Mapping[str, object], key: str, data_set: str) -> TextField:
    """The field that `key` names ("captions", "captions/text").

    Raises:
      ValueError: no text or class stands there; one line with those that there are.
    """
    known = dict(_texts_in(features))
    if key in known:
        return known[key]
    there: object = features
    for part in key.split("/"):
        there = _inside(there)
        if not isinstance(there, Mapping) or part not in there:
            problem = "has no field"
            break
        there = there[part]
    else:
        inside = _inside(there)
        is_fields = isinstance(inside, Mapping)
        problem = "holds fields, not captions, at" if is_fields else "holds no text at"
    choice = f"captions can be {sorted(known)}" if known else "it has no texts"
    raise ValueError(f"{data_set} {problem} {key!r}; {choice}, its fields are {sorted(features)}")


def _texts_in(
    features: Mapping[str, object], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, TextField]]:
    """Every field of texts or classes, by its key."""
    for name, feature in features.items():
        inside, here = _inside(feature), (*path, name)
        if isinstance(inside, Mapping):
            yield from _texts_in(inside, here)
        elif isinstance(inside, tfds.features.ClassLabel):
            # Classes without names are called by their numbers.
            yield (
                "/".join(here),
                TextField(here, tuple(inside.names) if inside.num_classes else None),
            )
        elif isinstance(inside, tfds.features.Tensor) and _is_text(inside):
            yield "/".join(here), TextField(here)


def _inside(feature: object) -> object:
    """What a sequence holds, however deep; fields of a dict as a mapping; else the feature."""
    while isinstance(feature, tfds.features.Sequence):
        feature = feature.feature
    return dict(feature.items()) if isinstance(feature, tfds.features.FeaturesDict) else feature


def _is_text(feature: tfds.features.Tensor) -> bool:
    return feature.np_dtype == np.dtype(object) and feature.shape == ()


def _flat(value: object) -> Iterator[object]:
    """The texts of a text or of a sequence of them, however deep."""
    if isinstance(value, list | tuple | np.ndarray):
        for item in value:
            yield from _flat(item)
    else:
        yield value
