"""The command, from a list of prompts to the count, with cascades that compile at once."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import pytest

from diffjax import judge
from diffjax.build.stages import loading, places
from diffjax.generation import rows
from tests import tiny_cascade
from tests.evaluation.judging import made

LIST = "Prompts,Category\na red apple,Colors\ntwo dogs,Counting\n"


@pytest.fixture(scope="module")
def cascades(tmp_path_factory):
    """Two systems that differ in the weight of their networks."""
    one = tiny_cascade.cascade(tmp_path_factory.mktemp("t5"))
    other = dataclasses.replace(
        one, origins=tuple(dataclasses.replace(o, checkpoint="f" * 64) for o in one.origins)
    ).with_settings([dataclasses.replace(s.settings, guidance_weight=1.5) for s in one.stages])
    return {"a": one, "b": other}


@pytest.fixture
def command(cascades, tmp_path, monkeypatch, capsys):
    """command(*flags) -> (exit code, stdout, stderr), in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text(LIST)
    monkeypatch.setattr(places, "stage_dirs", lambda where, **more: [where])
    monkeypatch.setattr(loading, "load", lambda dirs, *more: cascades[dirs[0].name])
    monkeypatch.setattr("diffjax.devices.mesh.keep_compilations", lambda: None)

    def run(*flags):
        code = judge.main([*map(str, flags)])
        return code, *capsys.readouterr()

    return run


MAKE = ("make", "list.csv", "runs/a", "runs/b", "--num", "2")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")}


def test_pictures_are_made_shown_and_counted(command, tmp_path):
    assert command(*MAKE)[0] == 0
    assert len(contents(tmp_path / "judged")) == 2 * (2 * 2 * 2 + 1)
    assert command("page", "judged", "--question", "Which?")[0] == 0
    key = made.key_of(tmp_path / "judged")
    for number in range(3):
        sides = {
            at: "left" if left == "a" else "right" for at, (left, *_) in enumerate(key["items"])
        }
        made.answers(tmp_path / f"{number}.json", key["page"], number, sides)
    code, out, _ = command("tally", "judged", "0.json", "1.json", "2.json")
    assert code == 0
    found = json.loads((tmp_path / "tally.json").read_text())
    assert found["pairs"][0]["by_category"]["all"]["win_rate"] == 1.0
    assert found["agreement"]["share"] == 1.0
    assert "a against b" in out
    assert "100 % of pairs agree" in out
    code, _, err = command("tally", "judged", "0.json")
    assert (code, "is there already; --overwrite replaces it" in err) == (2, True)
    assert command("tally", "judged", "0.json", "--overwrite")[0] == 0
    code, _, err = command("tally", "judged", "0.json", "0.json", "--overwrite")
    assert (code, "is of the same person" in err) == (2, True)


def test_a_run_that_was_cut_off_goes_on_and_ends_as_one_that_was_not(
    command, tmp_path, monkeypatch
):
    assert command(*MAKE, "--out", "whole")[0] == 0
    make = rows.make

    def cut_off(stages, jobs):
        for number, pictures in enumerate(make(stages, jobs)):
            if number == 2:
                raise KeyboardInterrupt
            yield pictures

    with monkeypatch.context() as patch:
        patch.setattr(rows, "make", cut_off)
        with pytest.raises(KeyboardInterrupt):
            command(*MAKE)
    before = contents(tmp_path / "judged")
    assert len(before) == 4
    made_now = []
    monkeypatch.setattr(rows, "make", lambda s, todo: made_now.append(len(todo)) or make(s, todo))
    assert command(*MAKE)[0] == 0
    assert made_now == [2, 4]
    assert contents(tmp_path / "judged") == contents(tmp_path / "whole")


def test_a_system_may_be_added_later_with_settings_of_its_own(command, tmp_path):
    assert command("make", "list.csv", "runs/a", "--num", "2")[0] == 0
    assert (
        command("make", "list.csv", "runs/a", "--num", "2", "--steps", "3", "--names", "c")[0] == 0
    )
    assert command("page", "judged")[0] == 0
    assert made.key_of(tmp_path / "judged")["systems"] == ["a", "c"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("make", "absent.csv", "runs/a"), "no such file"),
        (("make", "list.csv", "runs/a", "--num", "0"), "--num = 0: must be at least 1"),
        (("make", "list.csv", "runs/a", "--seed", "-1"), "--seed = -1"),
        (("make", "list.csv", "runs/a", "--seed", 2**31 - 1), "at most 2147483640"),
        (("make", "list.csv", "runs/a", "x/a"), "two are equal; --names gives others"),
        (("make", "list.csv", "runs/a", "--steps", "0"), "--steps"),
        (("page", "absent"), "holds no pictures of `diffjax.judge make`"),
        (("tally", "absent", "list.csv"), "not answers of a page"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(flags, words, command):
    code, _, err = command(*flags)
    assert (code, words in err, err.count("\n")) == (2, True, 1)


def test_the_commands_of_the_page_have_flags_that_there_are():
    text = (Path(judge.__file__).parent.parent / "docs/judging.md").read_text()
    lines = re.findall(r"^python -m diffjax\.judge (.*)$", text, re.M)
    asked = [judge.parser().parse_args(shlex.split(line)).command for line in lines]
    assert asked == ["make", "page", "tally"]


def test_other_prompts_are_not_mixed_into_a_folder(command, tmp_path):
    assert command("make", "list.csv", "runs/a", "--num", "1")[0] == 0
    (tmp_path / "list.csv").write_text(LIST + "three cats,Counting\n")
    code, _, err = command("make", "list.csv", "runs/b", "--num", "1")
    assert (code, "holds pictures of other prompts or seeds" in err) == (2, True)
    assert not (tmp_path / "judged" / "b").exists()
