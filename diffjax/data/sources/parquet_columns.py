"""Which columns of a parquet file hold pictures, captions and classes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffjax.data.sources import beside
from diffjax.data.sources.files import shown

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

IMAGE_FIELDS = ("image", "img", "jpg", "png", "picture", "image_bytes", "image_path", "file_name")
LABEL_FIELDS = ("label", "labels", "class", "fine_label")


@dataclass(frozen=True)
class Columns:
    """The columns that are read; "" for none. classes: the labels' names, () if unknown."""

    image: str
    caption: str
    label: str
    classes: tuple[str, ...]


def find(path: Path, schema: "pyarrow.Schema", image_key: str, caption_key: str) -> Columns:
    """The columns of these keys, or of the usual names where a key is "".

    Raises:
      ValueError: there is none; one line that names `path` and the columns that there are.
    """
    image = _column(path, schema, image_key, IMAGE_FIELDS)
    if not image:
        raise ValueError(
            f"{shown(path)}: no column of pictures among {sorted(schema.names)}; "
            "name it by data.image_key"
        )
    label = _column(path, schema, "", LABEL_FIELDS)
    if not label or not _is_integer(schema.field(label).type):
        label = ""
    caption = _column(path, schema, caption_key, beside.CAPTION_FIELDS)
    return Columns(image, caption, label, _class_names(schema, label) if label else ())


def opened(path: Path) -> "parquet.ParquetFile":
    """The file with its header read; a ValueError of one line if it is not parquet."""
    try:
        from pyarrow import lib, parquet
    except ImportError:
        raise ValueError(f"{path}: parquet needs pyarrow: pip install 'diffjax[parquet]'") from None
    try:
        return parquet.ParquetFile(path)
    except (lib.ArrowException, OSError) as error:
        raise ValueError(f"{shown(path)}: not parquet: {first_line(error)}") from None


def _column(path: Path, schema: "pyarrow.Schema", key: str, usual: Sequence[str]) -> str:
    """The column of a name, or the first of the usual names; "" if there is none of these."""
    if key and key not in schema.names:
        raise ValueError(f"{shown(path)}: no column {key!r}, only {sorted(schema.names)}")
    return key or next((name for name in usual if name in schema.names), "")


def _class_names(schema: "pyarrow.Schema", label: str) -> tuple[str, ...]:
    """The names that Hugging Face's metadata of the file give to the labels."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = about["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return ()
    whole = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if whole else ()


def _is_integer(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    return types.is_integer(kind)


def first_line(error: Exception) -> str:
    """What an error says first, short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
