"""What the check of a data set says."""

import numpy as np
import pytest
from PIL import Image

from diffjax.data import __main__ as command
from diffjax.data.report import report
from diffjax.data.sources.open import open_source
from tests.data.sources import made


@pytest.fixture
def mess(tmp_path):
    root = made.folder(tmp_path / "mess", "txt", count=6)
    (root / "p000.txt").unlink()
    (root / "twin.png").write_bytes((root / "p002.png").read_bytes())
    (root / "twin.txt").write_text("a twin of picture 2\nand a second caption")
    (root / "page.jpg").write_text("<html>")
    Image.new("RGB", (300, 200)).save(root / "large.jpg")
    (root / "large.txt").write_text("word " * 200)
    return f"folder:{root}"


def test_a_report_counts_what_is_there(mess):
    found = report(open_source(mess))
    assert (found.total, found.records, len(found.broken)) == (9, 9, 1)
    assert found.formats == {"PNG": 7, "JPEG": 1}
    assert found.duplicates == (("p002.png", "twin.png"),)
    assert [skipped.name for skipped in found.broken] == ["page.jpg"]
    lines = "\n".join(found.lines(lambda text: len(text.split()), 96))
    for words in (
        "9 records\n", "8 can be used, 1 cannot", "24 x 20 to 300 x 200 px", "PNG 7, JPEG 1",
        "7 with, 1 without; up to 2 each", "1 of 8 different ones have over 96 tokens and lose",
        "classes     none", "1 pictures stand more than once, such as p002.png, twin.png",
    ):  # fmt: skip
        assert words in lines, words
    json = found.as_json()
    assert (json["usable"], json["with_captions"]) == (8, 7)


def test_some_records_spread_over_the_whole_can_stand_for_it(mess):
    found = report(open_source(mess), limit=3)
    assert (found.total, found.records) == (9, 3)
    assert "9 records, 3 looked at" in found.lines()[0]


def test_classes_are_counted_by_name(tmp_path):
    found = report(open_source(f"folder:{made.folder(tmp_path / 'a', 'classes')}"))
    assert "3: blue_things 4, green_things 4, red_things 4" in "\n".join(found.lines())


def test_processes_see_the_same(mess):
    source = open_source(mess)
    assert report(source, workers=1) == report(source)


def test_the_command_writes_the_report_and_a_sheet(mess, tmp_path, capsys):
    sheet, json = tmp_path / "sheet.png", tmp_path / "report.json"
    flags = ["check", mess, "--workers", "0", "--sheet", str(sheet), "--json", str(json)]
    assert command.main(flags) == 0
    out = capsys.readouterr().out
    assert "cannot be used: page.jpg: 6 bytes starting b'<html>'" in out
    assert json.exists()
    assert np.asarray(Image.open(sheet)).std() > 10


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["check", "folder:/nowhere"], "/nowhere: there is no such folder"),
        (["check", "fake:3", "--limit", "-1"], "--limit = -1: must be at least 0"),
        (["prepare", "fake:3", "x", "--size", "-1"], "--size = -1"),
        (["prepare", "fake:3", "x", "--validation", "2"], "--validation = 2"),
        (["check", "fake:3", "--workers", "-2"], "--workers = -2"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(flags, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(flags) == 2
    err = capsys.readouterr().err

    assert words in err.splitlines()[-1]


def test_the_command_prepares_with_embeddings_and_says_how_to_train(mess, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["prepare", mess, str(out), "--size", "16", "--workers", "0", "--encoder", "t5-nano"]
    assert command.main(flags) == 0
    said = capsys.readouterr().out
    assert "train: 8 records in 1 files, 1 left out, listed in left_out.jsonl" in said
    assert f"--config.data.name={out} --config.data.embeddings={out}/embeddings" in said
