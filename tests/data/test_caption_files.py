import json

import pytest

from diffjax.data.caption_files import from_files

CAPTIONS = ["naïve ☕", 'a "red" apple, cut', "two birds"]
MARK = "\ufeff"


def written(path, text):
    path.write_bytes(text.encode())
    return path


def as_text(captions):
    return "\n".join(captions) + "\n"


def as_lines(captions):
    return "".join(json.dumps({"caption": c, "url": 1}) + "\n" for c in captions)


def as_json(captions):
    return json.dumps([{"caption": c} for c in captions], indent=1)


def as_csv(captions, between=","):
    quoted = ['"' + c.replace('"', '""') + '"' for c in captions]
    return f"id{between}caption\r\n" + "".join(f"7{between}{c}\r\n" for c in quoted)


@pytest.mark.parametrize("mark", ["", MARK], ids=["plain", "marked"])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.txt", as_text),
        ("a.TXT", as_text),
        ("a", as_text),
        ("a.jsonl", as_lines),
        ("a.JsonL", as_lines),
        ("a.json", as_json),
        ("a.JSON", as_json),
        ("a.csv", as_csv),
        ("a.CSV", as_csv),
        ("a.tsv", lambda captions: as_csv(captions, "\t")),
    ],
)
def test_every_kind_of_file_holds_the_same_captions(name, write, mark, tmp_path):
    found = from_files([written(tmp_path / name, mark + write(CAPTIONS))])
    assert list(found) == CAPTIONS
    assert found.estimate() == 3


def test_a_json_list_may_hold_strings_objects_and_lists(tmp_path):
    entries = ["a", {"caption": ["b", "c"]}, {"caption": None}, {"caption": " d "}]
    assert list(from_files([written(tmp_path / "a.json", json.dumps(entries))])) == list("abcd")
    one = {"caption": ["a", "b"]}
    assert list(from_files([written(tmp_path / "a.json", json.dumps(one))])) == ["a", "b"]


def test_a_line_of_csv_may_be_empty_or_short_and_a_caption_may_hold_a_line_end(tmp_path):
    text = 'id,caption\n1,"two\nlines"\n\n2\n3,last\n'
    assert list(from_files([written(tmp_path / "a.csv", text)])) == ["two\nlines", "last"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xlsx", "a", "a.xlsx: no kind of file that is known, which are .csv, .json, .jsonl,"),
        ("a.txt.gz", "a", "a.txt.gz: no kind of file that is known"),
        ("a.json", '{"caption": "a"}\n{"caption": "b"}', "one object a line is .jsonl"),
        ("a.json", '[{"text": "a"}]', "entry 0: no field 'caption', only ['text']; --field"),
        ("a.json", "[[1]]", "entry 0: no field 'caption', only a list"),
        ("a.json", "[" * 100_000, "a.json: not JSON: nested too deep"),
        ("a.csv", "id,text\n1,a\n", "a.csv: no column 'caption', only ['id', 'text']; --field"),
        ("a.csv", "", "a.csv: no column 'caption', only []"),
        ("a.csv", 'caption\n"' + "a" * 200_000 + '"\n', "not CSV: field larger than"),
    ],
)
def test_what_cannot_be_read_is_a_line_that_names_the_file(name, text, message, tmp_path):
    with pytest.raises(ValueError, match=r"^/") as caught:
        list(from_files([written(tmp_path / name, text)]))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
