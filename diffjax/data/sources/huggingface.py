"""Data sets of Hugging Face's `datasets`, an optional extra; pictures stay encoded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from diffjax.data.broken import BrokenRecord
from diffjax.data.record import Record
from diffjax.data.sources import beside
from diffjax.data.sources.parquet_columns import IMAGE_FIELDS, LABEL_FIELDS, Columns

if TYPE_CHECKING:
    import datasets


def split_names(name: str) -> tuple[str, ...]:
    """The splits of a data set on the hub or saved; a set that was saved without any has "train".

    Raises:
      ValueError: as `open_huggingface`.
    """
    datasets = _library(name)
    try:
        if _is_saved(name):
            saved = datasets.load_from_disk(str(Path(name).expanduser()))
            return tuple(saved) if isinstance(saved, Mapping) else ("train",)
        where, _, config = name.partition("@")
        return tuple(datasets.get_dataset_split_names(where, config or None))
    except Exception as error:  # the hub's errors share no base
        raise ValueError(f"hf:{name}: {_first_line(error)}") from None


def open_huggingface(
    name: str, split: str, *, image_key: str = "", caption_key: str = ""
) -> "HuggingFace":
    """The rows of a split: of a data set on the hub ("owner/name", "owner/name@config"), or saved.

    Code of a data set is never run.

    Raises:
      ValueError: `datasets` is not installed, there is no such data set or split, or it has no
        column of pictures.
    """
    datasets = _library(name)
    try:
        found = _loaded(name, split)
    except Exception as error:  # the hub's errors share no base
        raise ValueError(f"hf:{name} split {split!r}: {_first_line(error)}") from None
    features = found.features
    for key in filter(None, (image_key, caption_key)):
        if key not in features:
            raise ValueError(f"hf:{name}: no column {key!r}, only {sorted(features)}")
    image = image_key or next(
        (key for key, feature in features.items() if isinstance(feature, datasets.Image)),
        next((key for key in IMAGE_FIELDS if key in features), ""),
    )
    if not image:
        raise ValueError(f"hf:{name}: no column of pictures among {sorted(features)}")
    label = next(
        (key for key in LABEL_FIELDS if isinstance(features.get(key), datasets.ClassLabel)), ""
    )
    caption = caption_key or next((key for key in beside.CAPTION_FIELDS if key in features), "")
    classes = tuple(features[label].names or ()) if label else ()
    if isinstance(features[image], datasets.Image):
        found = found.cast_column(image, datasets.Image(decode=False))
    return HuggingFace(found, Columns(image, caption, label, classes), f"hf:{name} {split}")


class HuggingFace:
    """Rows by index; they lie in Arrow files that the system maps into memory."""

    unchecked = True

    def __init__(self, rows: "datasets.Dataset", columns: Columns, called: str):
        self._rows, self._columns, self._called = rows, columns, called
        self._texts = rows.select_columns([columns.caption]) if columns.caption else None

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:
        """The record at `index`; BrokenRecord if its picture cannot be read."""
        row = self._rows[index]
        record: dict[str, object] = {"name": self.name(index), "captions": self.captions(index)}
        if self._columns.label:
            record["label"] = row[self._columns.label]
        record["image"] = _bytes_of(row[self._columns.image])
        return record

    def __repr__(self) -> str:
        """As messages name it."""
        return f"{self._called} ({len(self)} rows)"

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, () if there are none."""
        return self._columns.classes

    def name(self, index: int) -> str:
        """The number of the row."""
        return f"row {index}"

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of the row at `index`; its picture is not read."""
        if self._texts is None:
            return ()
        value = self._texts[index][self._columns.caption]
        texts = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
            raise BrokenRecord(f"its caption {str(value)[:40]!r} is no text")
        return tuple(texts)

    def captioned(self) -> bool:
        """Whether rows have captions."""
        return bool(self._columns.caption)

    def fingerprint(self) -> str:
        """What `datasets` knows the rows by, and the columns that are read."""
        return f"{self._called} {self._rows._fingerprint} {self._columns}"


def _library(name: str) -> ModuleType:
    try:
        import datasets
    except ImportError:
        raise ValueError(f"hf:{name} needs datasets: pip install 'diffjax[hf]'") from None
    return datasets


def _is_saved(name: str) -> bool:
    """Whether `save_to_disk` wrote the folder; others are read as the hub's are."""
    folder = Path(name).expanduser()
    return any((folder / file).exists() for file in ("dataset_dict.json", "state.json"))


def _loaded(name: str, split: str) -> "datasets.Dataset":
    import datasets

    if _is_saved(name):
        saved = datasets.load_from_disk(str(Path(name).expanduser()))
        return saved[split] if isinstance(saved, Mapping) else saved
    owner_and_name, _, config = name.partition("@")
    return datasets.load_dataset(owner_and_name, config or None, split=split)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _bytes_of(value: object) -> bytes:
    """The bytes of a picture: as they are, or of the file that the data set keeps it in."""
    if isinstance(value, bytes):
        return value
    found = value if isinstance(value, Mapping) else {"path": value}
    data, path = found.get("bytes"), found.get("path")
    if isinstance(data, bytes):
        return data
    if not isinstance(path, str):
        raise BrokenRecord("it has no picture")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BrokenRecord(f"its picture: {error.strerror}") from None
