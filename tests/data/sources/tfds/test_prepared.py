"""Prepared data sets whose own files are damaged."""

import shutil
from pathlib import Path

import pytest

from diffjax.core.errors import StorageError
from diffjax.data.sources.tfds import open_source, prepared
from tests.damage import KINDS


@pytest.fixture
def folder(few_emoji, tmp_path):
    (info,) = Path(few_emoji).glob("emoji/64/*/dataset_info.json")
    copy = tmp_path / "set"
    copy.mkdir()
    for path in info.parent.iterdir():
        if path.suffix == ".json":
            shutil.copy(path, copy)
        else:
            (copy / path.name).symlink_to(path)
    return copy


def test_a_whole_folder_is_opened(folder):
    assert len(open_source(str(folder), "train")) > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", prepared.FILES)
def test_a_damaged_file_of_a_data_set_is_one_line_with_the_folder_and_the_remedy(
    name, kind, folder
):
    KINDS[kind](folder / name)
    with pytest.raises(StorageError) as caught:
        open_source(str(folder), "train")
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert message.endswith(prepared.REMEDY)
    assert "\n" not in message


def test_a_missing_file_of_a_data_set_is_named(folder):
    (folder / "features.json").unlink()
    with pytest.raises(StorageError, match=r"features\.json: there is no such file"):
        open_source(str(folder), "train")
