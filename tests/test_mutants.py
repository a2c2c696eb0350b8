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
        file, _, name = by.partition("::")
        assert f"def {name}(" in (mutants.ROOT / file).read_text()


def test_an_edit_is_made_where_it_is_meant_and_undone(tmp_path):
    """A test that it breaks is named; the copy is as it was, and no bytecode of the edit is left."""
    (tmp_path / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "test_sums.py").write_text(
        "from sums import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n"
    )
    wrong = mutants.Mutant("sums.py", "takes away", "a + b", "a - b", ("test_sums.py",))
    before = (tmp_path / "sums.py").read_text()
    assert mutants.noticed_by(wrong, tmp_path) == "test_sums.py::test_add"
    assert (tmp_path / "sums.py").read_text() == before
    assert not list(tmp_path.glob("__pycache__/sums.*"))
    assert "is there 0 times" in mutants.Mutant("sums.py", "", "a * b", "", ()).fault(tmp_path)
