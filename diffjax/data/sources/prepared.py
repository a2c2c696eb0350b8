"""The folder of a data set that tensorflow-datasets has prepared, opened or refused in a line."""

from pathlib import Path

import tensorflow_datasets as tfds

from diffjax.core.errors import StorageError
from diffjax.core.files import read_json

# What tensorflow-datasets reads before it knows where the records lie.
FILES = ("dataset_info.json", "features.json")
REMEDY = "delete the folder, and prepare the data set anew"


def builder_of(folder: str | Path) -> tfds.core.DatasetBuilder:
    """The read-only builder of a prepared folder, such as `.../emoji/64/1.0.0`.

    Raises:
      StorageError: one of its files is damaged, or is another program's.
    """
    folder = Path(folder)
    for name in FILES:
        try:
            read_json(folder / name, REMEDY)
        except FileNotFoundError:
            raise StorageError(f"{folder / name}: there is no such file; {REMEDY}") from None
    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:  # its readers of protobuf and of features share no base
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise StorageError(f"{folder}: not a prepared data set: {line}; {REMEDY}") from None
