"""Tars: honest ones, cut ones, and those of people who mean harm."""

import io
import json
import os
import tarfile

import numpy as np
import pytest

from diffjax.data.broken import BrokenRecord
from diffjax.data.sources import tar
from diffjax.data.sources.tar_index import index_of
from tests.data.sources import made

PNG = made.encoded(made.picture(0))


def opened(path, members):
    return tar.open_tars([made.tar(path, members)])


def test_members_of_one_name_are_one_example(tmp_path):
    source = opened(tmp_path / "a.tar", [
        ("x/1.seg.png", PNG), ("x/1.txt", b"one"), ("x/2.json", b'{"caption": "two", "n": 3}'),
        ("x/2.jpg", PNG), ("y/2.png", PNG), ("y/2.cls", b"7\n"), ("alone.txt", b"no picture"),
        ("3.json", b'{"text": ["a", "b"]}'), ("3.txt", b"text wins"), ("3.png", PNG),
    ])  # fmt: skip
    assert [source.name(i) for i in range(len(source))] == [
        "a.tar/x/1", "a.tar/x/2", "a.tar/y/2", "a.tar/3"
    ]  # fmt: skip
    assert [source.captions(i) for i in range(4)] == [("one",), ("two",), (), ("text wins",)]
    assert source[2]["label"] == 7
    assert "label" not in source[0]


def test_an_index_is_kept_and_read_again_and_made_anew_for_another_file(tmp_path):
    path, cache = tmp_path / "a.tar", tmp_path / "cache"
    made.tar(path, [("1.png", PNG), ("1.txt", b"one")])
    first = index_of(path, cache)
    (kept,) = cache.iterdir()
    again = index_of(path, cache)
    assert again.names == first.names
    np.testing.assert_array_equal(again.rows, first.rows)
    kept.write_bytes(kept.read_bytes()[:50])  # damage costs nothing but time
    assert index_of(path, cache).names == first.names
    made.tar(path, [("1.png", PNG), ("2.png", PNG)])
    assert index_of(path, cache).names == ("1", "2")


def test_links_devices_and_paths_out_of_the_tar_are_nothing(tmp_path):
    path = tmp_path / "a.tar"
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG)
    with tarfile.open(path, "w") as stream:
        for name, kind, target in (
            ("1.png", tarfile.SYMTYPE, str(secret)), ("2.png", tarfile.LNKTYPE, "../secret.png"),
            ("3.png", tarfile.CHRTYPE, ""), ("4.png", tarfile.FIFOTYPE, ""),
            ("5.png", tarfile.DIRTYPE, ""),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            stream.addfile(info)
        for name in ("/etc/6.png", "../../7.png", "a/../8.png"):
            info = tarfile.TarInfo(name)
            info.size = len(PNG)
            stream.addfile(info, io.BytesIO(PNG))
    before = sorted(p for p in tmp_path.rglob("*"))
    source = tar.open_tars([path])
    assert len(source) == 3
    assert all(source[i]["image"] == PNG for i in range(3))
    assert sorted(p for p in tmp_path.rglob("*")) == before


def test_pickles_in_a_tar_are_never_loaded(tmp_path):
    trap = tmp_path / "sprung"
    attack = b"cposix\nsystem\n(S'touch %s'\ntR." % str(trap).encode()
    source = opened(
        tmp_path / "a.tar",
        [
            ("1.png", PNG),
            ("1.pkl", attack),
            ("1.pyd", attack),
            ("1.json", attack),
            ("2.png", attack),
        ],
    )
    with pytest.raises(BrokenRecord, match=r"its \.json is no JSON"):
        source[0]
    assert source[1]["image"] == attack
    assert not trap.exists()


def test_a_tar_that_is_cut_short_gives_what_stands_whole_in_it(tmp_path):
    path = made.tar(tmp_path / "a.tar", [(f"{i}.png", PNG) for i in range(9)])
    path.write_bytes(path.read_bytes()[: 512 * 5 + 600])
    source = tar.open_tars([path])
    assert 1 <= len(source) < 9
    assert source.cut_short() == [path]
    assert all(source[i]["image"] == PNG for i in range(len(source)))


def test_a_tar_that_shrinks_while_it_is_read_is_a_broken_record(tmp_path):
    path = made.tar(tmp_path / "a.tar", [("1.png", PNG), ("2.png", PNG)])
    source = tar.open_tars([path])
    os.truncate(path, 1100)
    with pytest.raises(BrokenRecord, match=r"a\.tar ends before its member does"):
        source[1]
    path.unlink()
    with pytest.raises(BrokenRecord, match=r"a\.tar: No such file"):
        tar.Tars([path], [index_of(made.tar(tmp_path / "b.tar", [("1.png", PNG)]))])[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a tar|no picture"), (b"x" * 2000, "not a tar"),
        (b"\x1f\x8b" + bytes(600), "compressed by gzip; unpack it"), (PNG, "not a tar"),
        (bytes(10240), "no picture in it"),
    ],
)  # fmt: skip
def test_what_is_no_plain_tar_is_one_line(tmp_path, data, words):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(ValueError, match=words) as caught:
        tar.open_tars([tmp_path / "a.tar"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"caf\xe9", json.dumps([1]).encode(), b"[" * 100_000])
def test_texts_that_cannot_be_read_break_their_own_record_alone(tmp_path, text):
    kind = "txt" if text == b"caf\xe9" else "json"
    source = opened(tmp_path / "a.tar", [("1.png", PNG), (f"1.{kind}", text), ("2.png", PNG)])
    if text.startswith(b"[1"):
        assert source[0]["captions"] == ()
    else:
        with pytest.raises(BrokenRecord):
            source[0]
    assert source[1]["captions"] == ()
