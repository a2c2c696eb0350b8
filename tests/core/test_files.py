import shutil

import pytest

from diffjax.core import files
from diffjax.core.errors import StorageError


def test_free_bytes_are_those_of_the_file_system_also_of_a_folder_yet_to_be_made(tmp_path):
    free = files.free_bytes(tmp_path / "a/b/c")
    assert abs(free - shutil.disk_usage(tmp_path).free) < 1 << 30


def test_what_is_published_is_whole_and_replaces_what_was_there(tmp_path):
    temporary, path = tmp_path / "x.tmp", tmp_path / "x"
    path.write_text("old")
    temporary.write_text("new")
    files.publish(temporary, path)
    assert path.read_text() == "new"
    assert not temporary.exists()


def test_what_the_disk_refuses_is_a_storage_error_of_one_line(tmp_path):
    with (
        pytest.raises(StorageError, match="absent: No such file"),
        files.storing(tmp_path / "absent"),
    ):
        (tmp_path / "absent").read_text()
