"""Folders of pictures: which files count, and what is said about them."""

import os

import pytest

from diffjax.data.broken import BrokenRecord
from diffjax.data.record import captions_at
from diffjax.data.sources import folder
from diffjax.data.sources.beside import TableError
from tests.data.sources import made

WAYS = ("txt", "metadata.jsonl", "captions.jsonl", "captions.json", "captions.csv", "captions.tsv")


def captions_of(source):
    return {source.name(i): source.captions(i) for i in range(len(source))}


@pytest.mark.parametrize("way", WAYS)
def test_captions_are_found_beside_the_pictures_in_each_format(tmp_path, way):
    source = folder.open_folder(made.folder(tmp_path / "a", way))
    assert source.captioned()
    for name, texts in captions_of(source).items():
        assert texts == (made.caption(int(name[-7:-4])),)
    assert source.classes == ()


def test_a_table_may_stand_beside_its_pictures_and_name_one_several_times(tmp_path):
    made.folder(tmp_path / "a/b", None, count=3)
    (tmp_path / "a/b/captions.txt").write_text(
        "image,caption\np000.png,one\np000.png,two\nx.png,no"
    )
    found = captions_of(folder.open_folder(tmp_path / "a"))
    assert found == {"b/more/p001.png": (), "b/p000.png": ("one", "two"), "b/p002.png": ()}


def test_a_text_file_has_a_caption_a_line_and_its_mark_and_blank_lines_are_no_part_of_it(tmp_path):
    made.folder(tmp_path / "a", None, count=2)
    (tmp_path / "a/p000.txt").write_bytes(b"\xef\xbb\xbfone\r\n\n two \n")
    (tmp_path / "a/more/p001.png.txt").write_text("three")
    assert list(captions_of(folder.open_folder(tmp_path / "a")).values()) == [
        ("three",), ("one", "two")
    ]  # fmt: skip


def test_a_folder_without_captions_has_none(tmp_path):
    source = folder.open_folder(made.folder(tmp_path / "a", None))
    assert not source.captioned()
    assert set(captions_of(source).values()) == {()}
    assert source.classes == ()


def test_folders_of_classes_give_labels_and_captions(tmp_path):
    source = folder.open_folder(made.folder(tmp_path / "a", "classes"))
    assert source.classes == ("blue_things", "green_things", "red_things")
    for i in range(len(source)):
        record = source[i]
        assert record["name"].startswith(source.classes[record["label"]])
        assert record["captions"] == (record["name"].partition("_")[0] + " things",)
    silent = folder.open_folder(tmp_path / "a", captioned_by="none")
    assert set(captions_of(silent).values()) == {()}
    assert silent.classes == source.classes


def test_the_name_of_the_pictures_folder_can_be_asked_for_as_its_caption(tmp_path):
    source = folder.open_folder(made.folder(tmp_path / "a", "txt"), captioned_by="folder")
    assert set(captions_of(source).values()) == {(), ("more",)}


def test_folders_of_splits_are_the_splits(tmp_path):
    for name, count in (("train", 3), ("val", 2), ("test", 1)):
        made.folder(tmp_path / "a" / name, "txt", count=count)
    lengths = {
        s: len(folder.open_folder(tmp_path / "a", s)) for s in ("train", "validation", "test")
    }
    assert lengths == {"train": 3, "validation": 2, "test": 1}
    with pytest.raises(ValueError, match="no split 'dev', only"):
        folder.open_folder(tmp_path / "a", "dev")


def test_hidden_files_and_other_files_are_no_pictures(tmp_path):
    root = made.folder(tmp_path / "a", "txt", count=2)
    for name in (".hidden.png", "__MACOSX/x.png", ".git/y.png", "notes.md", "Thumbs.db"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    assert len(folder.open_folder(root)) == 2


def test_suffixes_count_in_any_case(tmp_path):
    root = made.folder(tmp_path / "a", "txt", count=1)
    os.rename(root / "p000.png", root / "P.JPG")
    os.rename(root / "p000.txt", root / "P.TXT")
    assert captions_of(folder.open_folder(root)) == {"P.JPG": (made.caption(0),)}


def test_links_are_followed_but_never_in_a_circle(tmp_path):
    root = made.folder(tmp_path / "a", "txt", count=2)
    os.symlink(root, root / "more" / "back")
    elsewhere = made.folder(tmp_path / "b", "txt", count=1)
    os.symlink(elsewhere, root / "there")
    names = list(captions_of(folder.open_folder(root)))
    assert names == ["more/p001.png", "p000.png", "there/p000.png"]


def test_files_that_cannot_be_read_are_broken_records_with_a_reason(tmp_path):
    root = made.folder(tmp_path / "a", None, count=1)
    os.symlink(tmp_path / "nowhere.png", root / "dangling.png")
    (root / "empty.png").mkdir()
    os.mkfifo(root / "pipe.png")
    (root / "gone.png").write_bytes(b"x")
    (root / "latin.png").write_bytes(made.encoded(made.picture(0)))
    (root / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (root / "long.png").write_bytes(made.encoded(made.picture(0)))
    (root / "long.txt").write_text("x" * 1_000_001)
    source = folder.open_folder(root)
    (root / "gone.png").unlink()
    reasons = {}
    for i in range(len(source)):
        try:
            source[i]
        except BrokenRecord as error:
            reasons[source.name(i)] = str(error)
    assert reasons == {
        "dangling.png": "No such file or directory",
        "empty.png": "a folder, not a picture",
        "gone.png": "No such file or directory",
        "latin.png": "its caption latin.txt is not UTF-8 (unexpected end of data at byte 3)",
        "long.png": "its caption long.txt has more than 1000000 bytes",
        "pipe.png": "no regular file, not a picture",
    }


def test_names_that_are_not_utf8_or_have_line_breaks_are_shown_on_one_line(tmp_path):
    root = made.folder(tmp_path / "a", None, count=1)
    data = made.encoded(made.picture(0))
    for name in (b"caf\xe9.png", b"two\nlines.png"):
        with open(os.path.join(os.fsencode(root), name), "wb") as stream:
            stream.write(data)
    source = folder.open_folder(root)
    assert [source.name(i) for i in range(3)] == ["caf\ufffd.png", "p000.png", "two\ufffdlines.png"]
    assert all(source[i]["image"] == data for i in range(3))


def test_blank_very_long_and_broken_captions_follow_the_one_rule(tmp_path):
    root = made.folder(tmp_path / "a", None, count=1)
    (root / "captions.json").write_text('{"p000.png": ["  ", "a\\u0000b ", "%s"]}' % ("x" * 20_000))
    blank, nul, long = captions_at(folder.open_folder(root), 0)
    assert (blank, nul, len(long)) == ("", "a b", 10_000)


def test_a_change_of_any_file_changes_the_fingerprint(tmp_path):
    root = made.folder(tmp_path / "a", "txt", count=3)
    seen = {folder.open_folder(root).fingerprint()}
    for change in (
        lambda: (root / "p000.png").write_bytes(b"other"),
        lambda: (root / "p002.png").rename(root / "p003.png"),
        lambda: (root / "p000.txt").write_text("another caption"),
        lambda: (root / "more/p001.png").unlink(),
    ):
        change()
        seen.add(folder.open_folder(root).fingerprint())
    assert len(seen) == 5
    assert folder.open_folder(root, captioned_by="none").fingerprint() not in seen


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("metadata.jsonl", b"{", "metadata.jsonl line 1: not JSON"),
        ("metadata.jsonl", b"[1]", "line 1: want an object"),
        ("metadata.jsonl", b'{"text": "x"}', "no path of a picture"),
        ("metadata.jsonl", b'{"file": "x", "text": 3}', "is no text"),
        ("metadata.jsonl", b"[" * 100_000, "nested too deep"),
        ("captions.json", b'{"x": [3]}', "are no texts"),
        ("captions.csv", b"a,b\n1,2", "its columns are \\['a', 'b'\\]"),
        ("captions.csv", b"caf\xe9", "not UTF-8"),
        ("captions.csv", b"", "its columns are \\[\\]"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path, name, data, words):
    root = made.folder(tmp_path / "a", None, count=1)
    (root / name).write_bytes(data)
    with pytest.raises(TableError, match=words) as caught:
        folder.open_folder(root)
    assert "\n" not in str(caught.value)


def test_pictures_of_kinds_that_are_not_read_are_counted_where_the_source_is_named(tmp_path):
    """A telephone's pictures would else be missing, and nobody would know."""
    root = made.folder(tmp_path / "a", None, count=2)
    assert repr(folder.open_folder(root)).endswith("a (2 pictures)")
    for name in ("IMG_1.HEIC", "IMG_2.heic", "more/x.svg"):
        (root / name).write_bytes(b"x")
    said = "(2 pictures; 2 .heic, 1 .svg cannot be read and are passed over)"
    assert repr(folder.open_folder(root)).endswith(said)
    for path in root.rglob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match=r"\(3 other files, 2 \.heic, 1 \.svg among them\)"):
        folder.open_folder(root)


def test_a_folder_without_a_picture_is_one_line(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(ValueError, match=r"no picture below it \(1 other files\); \.png"):
        folder.open_folder(tmp_path)


def test_text_files_that_are_no_pictures_own_are_no_captions(tmp_path):
    """A folder of classes stays one, whatever licence or notes lie in it."""
    root = made.folder(tmp_path / "a", "classes")
    (root / "LICENSE.txt").write_text("free")
    (root / "red_things/notes.txt").write_text("all of these are red")
    source = folder.open_folder(root)
    assert not source.captioned()
    assert source[0]["captions"] == ("blue things",)


def test_captions_can_come_from_beside_the_picture_and_from_the_folder_for_those_without(tmp_path):
    root = made.folder(tmp_path / "a", "classes")
    (root / "blue_things/p002.txt").write_text("the one with a text")
    (root / "red_things/captions.csv").write_text("image,caption\np000.png,the one in a table")
    found = captions_of(folder.open_folder(root, captioned_by="either"))
    assert found["blue_things/p002.png"] == ("the one with a text",)
    assert found["red_things/p000.png"] == ("the one in a table",)
    assert found["green_things/p001.png"] == ("green things",)
    assert all(each for each in found.values())
    quiet = captions_of(folder.open_folder(root))
    assert quiet["green_things/p001.png"] == ()


@pytest.mark.parametrize("name", ["p000", "other/p000.png", "/photos/p000.png"])
def test_a_table_that_names_no_picture_that_is_there_is_refused(tmp_path, name):
    """Without it the run would train without captions, and say nothing."""
    root = made.folder(tmp_path / "a", None, count=1)
    (root / "captions.csv").write_text(f"image,caption\n{name},a cat")
    with pytest.raises(TableError, match=rf"names 1 pictures such as '{name}', and none of them"):
        folder.open_folder(root)
    (root / "captions.csv").write_text(f"image,caption\n{name},a cat\n./p000.png,a dog")
    assert captions_of(folder.open_folder(root)) == {"p000.png": ("a dog",)}


def test_a_table_beside_the_folders_of_splits_has_the_captions_of_each(tmp_path):
    root = tmp_path / "a"
    made.folder(root / "train", None, count=2)
    made.folder(root / "val", None, count=1)
    (root / "metadata.jsonl").write_text(
        '{"file_name": "train/p000.png", "text": "one"}\n{"file_name": "val/p000.png", "text": "v"}'
    )
    before = folder.open_folder(root).fingerprint()
    assert captions_of(folder.open_folder(root)) == {"more/p001.png": (), "p000.png": ("one",)}
    assert captions_of(folder.open_folder(root, "validation")) == {"p000.png": ("v",)}
    (root / "metadata.jsonl").write_text('{"file_name": "train/p000.png", "text": "two"}')
    assert folder.open_folder(root).fingerprint() != before


def test_a_caption_that_was_edited_is_seen_by_its_time_but_a_copy_is_the_same_data(tmp_path):
    """The one decides whether captions are encoded again, the other whether a run may go on."""
    root = made.folder(tmp_path / "a", "txt", count=2)
    before = folder.open_folder(root)
    os.utime(root / "p000.txt", ns=(1, 1))
    after = folder.open_folder(root)
    assert after.fingerprint() != before.fingerprint()
    assert after.identity() == before.identity()
    os.utime(root / "p000.png", ns=(1, 1))
    assert folder.open_folder(root).fingerprint() == after.fingerprint()


def test_captions_in_four_ways_are_all_found(tmp_path):
    root = made.four_ways(tmp_path / "a")
    assert folder.open_folder(root).told_by_folders()
    source = folder.open_folder(root, captioned_by="either")
    found = captions_of(source)
    assert len(found) == 200
    for name, texts in found.items():
        index, way = int(name[-7:-4]), name.partition("/")[0]
        want = made.caption(index) if index < 150 else way.replace("_", " ")
        assert texts == (want,), name


def test_folders_speak_for_their_pictures_only_where_none_of_these_has_a_caption(tmp_path):
    root = made.folder(tmp_path / "a", "txt", count=4)
    assert not folder.open_folder(root).told_by_folders()  # none is without
    (root / "p000.txt").unlink()
    assert not folder.open_folder(root).told_by_folders()  # it lies in no folder
    (root / "p000.png").unlink()
    (root / "more/p001.txt").unlink()
    assert not folder.open_folder(root).told_by_folders()  # its neighbour has one
    (root / "more/p003.txt").unlink()
    assert folder.open_folder(root).told_by_folders()
    assert not folder.open_folder(made.folder(tmp_path / "b", "classes")).told_by_folders()
