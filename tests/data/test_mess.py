"""A thousand pictures of strangers, of which fifty cannot be used and as many are only odd."""

import errno
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from diffjax.core.errors import BadData
from diffjax.data import readers
from diffjax.data.broken import Broken
from diffjax.data.pipeline import train_iterator
from diffjax.data.probe import probe
from diffjax.data.sources.folder import open_folder
from tests.data.sources import made

COUNT = 1000
READERS = [readers.caption, readers.picture(8)]


def bomb():
    chunk = lambda k, d: struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))  # noqa: E731
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def break_one(path, kind):
    """Make the picture at `path` one that cannot be used; words of the reason."""
    png = path.read_bytes()
    path.unlink()
    if kind == "truncated":
        path.write_bytes(made.encoded(made.picture(0, (200, 200)), "JPEG")[:900])
        return "damaged picture"
    if kind == "empty":
        path.write_bytes(b"")
        return "0 bytes are not a picture"
    if kind == "html":
        path.write_text("<html>404")
        return "starting b'<html>40' are not a picture"
    if kind == "1x1":
        Image.new("RGB", (1, 1)).save(path)
        return "1 x 1 px: thinner than 4 px"
    if kind == "20000x1":
        Image.new("RGB", (20_000, 1)).save(path)
        return "20000 x 1 px: thinner"
    if kind == "bomb":
        path.write_bytes(bomb())
        return "more than 64 million pixels"
    if kind == "folder":
        path.mkdir()
        return "a folder, not a picture"
    if kind == "dangling":
        path.symlink_to(path.parent / "nowhere")
        return "No such file"
    if kind == "circle":
        path.symlink_to(path)
        return "Too many levels of symbolic links"
    path.write_bytes(png)
    path.with_suffix(".txt").write_bytes(b"caf\xe9")
    return "is not UTF-8"


def make_odd(path, kind):
    """Make it odd, but good to use."""
    if kind == "cmyk":
        path.write_bytes(made.encoded(Image.new("CMYK", (24, 20)), "JPEG"))
    elif kind == "16 bits":
        Image.fromarray(np.full((20, 24), 40_000, np.uint16)).save(path)
    elif kind == "palette":
        made.picture(1).quantize(4).save(path, transparency=0)
    elif kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        made.picture(1).save(path, exif=exif)
    elif kind == "no caption":
        path.with_suffix(".txt").unlink(missing_ok=True)
    elif kind == "blank caption":
        path.with_suffix(".txt").write_text("  \n\n")
    elif kind == "huge caption":
        path.with_suffix(".txt").write_text("word " * 10_000)
    else:
        path.with_suffix(".txt").write_bytes(b"nul \0 in it")


BAD = ("truncated", "empty", "html", "1x1", "20000x1", "bomb", "folder", "dangling", "circle",
       "latin-1")  # fmt: skip
ODD = ("cmyk", "16 bits", "palette", "turned", "no caption", "blank caption", "huge caption", "nul")


@pytest.fixture(scope="module")
def mess(tmp_path_factory):
    """The folder, {name: words of the reason} of the fifty, and the captions left as they were."""
    root = made.folder(tmp_path_factory.mktemp("mess") / "a", "txt", count=COUNT)
    places = sorted(root.rglob("*.png"))
    reasons, captions = {}, {made.caption(i) for i in range(COUNT)}
    for i in range(50):
        bad, odd = places[i * 19], places[i * 19 + 7]
        reasons[str(bad.relative_to(root))] = break_one(bad, BAD[i % len(BAD)])
        make_odd(odd, ODD[i % len(ODD)])
        captions -= {made.caption(int(path.stem[1:])) for path in (bad, odd)}
    return root, reasons, captions


def batches_of(root, broken, steps):
    iterator = train_iterator(
        open_folder(root), READERS, batch_size=50, seed=3, broken=broken, threads=2
    )
    return [next(iterator) for _ in range(steps)]


def test_the_count_is_exact_and_each_is_listed_with_its_reason(mess, tmp_path):
    root, reasons, _ = mess
    broken = Broken(COUNT, 0.05, tmp_path / "left_out.jsonl")
    assert probe(open_folder(root), broken) == COUNT
    found = {skipped.name: skipped.reason for skipped in broken.seen.values()}
    assert found.keys() == reasons.keys()
    for name, words in reasons.items():
        assert words in found[name], name
        assert "\n" not in found[name]


def test_an_epoch_shows_every_good_picture_and_none_of_the_others(mess, tmp_path):
    """Without looking first, the very same are met; another run has the same batches."""
    root, reasons, captions = mess
    broken = Broken(COUNT, 0.05, tmp_path / "left_out.jsonl")
    first = batches_of(root, broken, COUNT // 50)
    assert {skipped.name for skipped in broken.seen.values()} == reasons.keys()
    assert captions <= {str(text) for batch in first for text in batch["caption"]}
    for one, other in zip(first[:4], batches_of(root, Broken(COUNT, 0.05), 4), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_one_more_than_allowed_ends_it_before_the_run(mess):
    root, _, _ = mess
    with pytest.raises(BadData, match=r"after 49 others, .* allows, 49 of 1000"):
        probe(open_folder(root), Broken(COUNT, 0.049))


def test_files_that_vanish_grow_or_change_meanwhile_are_said_and_skipped(tmp_path):
    root = made.folder(tmp_path / "a", "txt", count=40)
    source = open_folder(root)
    iterator = train_iterator(
        source, READERS, batch_size=8, seed=0, broken=(broken := Broken(40, 1.0)), threads=0
    )
    next(iterator)
    (root / "p000.png").unlink()
    (root / "p002.png").write_bytes(b"no longer a picture")
    with open(root / "p004.png", "ab") as stream:
        stream.write(b"more bytes behind its end")
    os.truncate(root / "p006.png", 40)
    (root / "p008.txt").unlink()
    for _ in range(10):
        next(iterator)
    met = {skipped.name: skipped.reason for skipped in broken.seen.values()}
    assert met.keys() == {"p000.png", "p002.png", "p006.png", "p008.png"}
    assert "No such file" in met["p000.png"]
    assert "its caption p008.txt: No such file" in met["p008.png"]


def test_a_file_that_may_not_be_read_is_a_broken_record(tmp_path, monkeypatch):
    """The rights of files do not bind root, who may run the tests."""
    root = made.folder(tmp_path / "a", "txt", count=8)
    opened = os.open

    def refused(path, *how):
        if str(path).endswith("p004.png"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *how)

    monkeypatch.setattr(os, "open", refused)
    broken = Broken(8, 0.5)
    probe(open_folder(root), broken)
    assert [tuple(skipped)[1:] for skipped in broken.seen.values()] == [
        ("p004.png", "Permission denied")
    ]
