"""The list of wrong edits that tests notice: each can still be made, and was tried."""

import re

import pytest

from tools import mutants

LIST = mutants.read()
FOLDERS = (
    "app", "build", "checkpoint", "core", "data", "devices", "editing", "encoders", "evaluation",
    "generation", "images", "logs", "models", "planning", "tasks", "training",
)  # fmt: skip


@pytest.mark.parametrize("mutant", LIST, ids=lambda mutant: mutant.what)
def test_a_wrong_edit_can_be_made_in_one_place_and_names_tests_that_there_are(mutant):
    """If not: the code has changed; write the edit anew and run `python -m tools.mutants`."""
    assert mutant.fault(mutants.ROOT) == ""
    assert mutant.new != mutant.old
    for test in mutant.tests:
        file, _, name = test.partition("::")
        text = (mutants.ROOT / file).read_text()
        assert f"def {name.split('[')[0]}(" in text or not name


def test_each_folder_and_the_commands_have_wrong_edits_of_their_own():
    in_folder = [
        len([one for one in LIST if one.file.startswith(f"diffjax/{f}/")]) for f in FOLDERS
    ]
    commands = [one for one in LIST if re.fullmatch(r"diffjax/\w+\.py", one.file)]
    assert min(*in_folder, len(commands)) >= 3
    assert len({one.what for one in LIST}) == len(LIST)


def test_the_table_has_what_noticed_each_edit():
    found = mutants.rows_of()
    assert list(found) == [one.what for one in LIST]
    noticed = [by for by in found.values() if by not in (mutants.SURVIVED, mutants.UNTRIED)]
    assert len(noticed) >= 0.95 * len(LIST)
    for by in noticed:
        assert (mutants.ROOT / by.partition("::")[0]).is_file()


def test_an_edit_is_made_while_its_tests_run_and_undone(tmp_path, monkeypatch):
    """Its bytecode goes too: Python takes two files of one size and second for the same."""
    path, bytecode = tmp_path / "sums.py", tmp_path / "__pycache__" / "sums.cpython-311.pyc"
    path.write_text("a + b\n")
    bytecode.parent.mkdir()
    seen = []

    def failing(tests, copy):
        seen.append(path.read_text())
        assert not bytecode.exists()
        bytecode.touch()
        return "test_sums.py::test_add"

    monkeypatch.setattr(mutants, "failing", failing)
    bytecode.touch()
    wrong = mutants.Mutant("sums.py", "takes away", "a + b", "a - b", ("test_sums.py",))
    assert mutants.noticed_by(wrong, tmp_path) == "test_sums.py::test_add"
    assert (seen, path.read_text(), bytecode.exists()) == (["a - b\n"], "a + b\n", False)
    assert "is there 0 times" in mutants.Mutant("sums.py", "", "a * b", "", ()).fault(tmp_path)
