"""Opens the folder of a data set that tensorflow-datasets has prepared."""

from pathlib import Path

import tensorflow_datasets as tfds

from diffjax.core.errors import StorageError
from diffjax.core.files import read_json

# The files that tensorflow-datasets reads before it finds the records.
FILES = ("dataset_info.json", "features.json")
REMEDY = "delete the folder, and prepare the data set anew"


def builder_of(folder: str | Path) -> tfds.core.DatasetBuilder:
    """The read-only builder of a prepared folder, such as `.../emoji/64/1.0.0`.

    Raises:
      StorageError: one of its files is damaged, or was not written by tensorflow-datasets.
    """
    folder = Path(folder)
    for name in FILES:
        try:
            read_json(folder / name, REMEDY)
        except FileNotFoundError:
            raise StorageError(f"{folder / name}: there is no such file; {REMEDY}") from None
    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:  # its readers raise many types of errors
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise StorageError(f"{folder}: not a prepared data set: {line}; {REMEDY}") from None
