import shutil

import pytest

from diffjax.core import files
from diffjax.core.errors import StorageError


def test_free_bytes_are_those_of_the_file_system_even_if_the_folder_does_not_exist(tmp_path):
    free = files.free_bytes(tmp_path / "a/b/c")
    assert abs(free - shutil.disk_usage(tmp_path).free) < 1 << 30


def test_publishing_replaces_the_old_file_and_removes_the_temporary_one(tmp_path):
    temporary, path = tmp_path / "x.tmp", tmp_path / "x"
    path.write_text("old")
    temporary.write_text("new")
    files.publish(temporary, path)
    assert path.read_text() == "new"
    assert not temporary.exists()


def test_an_os_error_becomes_a_storage_error_of_one_line(tmp_path):
    with (
        pytest.raises(StorageError, match="absent: No such file"),
        files.storing(tmp_path / "absent"),
    ):
        (tmp_path / "absent").read_text()


def test_a_side_output_that_fails_is_one_warning_however_often_and_for_whatever_reason(
    tmp_path, capsys
):
    (tmp_path / "file").write_text("")
    for error in (OSError(28, "No space left on device"), ValueError("no such letter\nat all")):
        for _ in range(3):
            with files.side_output(tmp_path / type(error).__name__):
                raise error
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in said] == [
        f"{tmp_path / 'OSError'}: No space left on device; the run goes on without it",
        f"{tmp_path / 'ValueError'}: no such letter; the run goes on without it",
    ]
