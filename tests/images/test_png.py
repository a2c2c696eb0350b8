import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffjax.images import png
from tests.images.crafted import chunk, crafted, ours

PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(metadata=st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_metadata_and_pixels_survive_the_round_trip(tmp_path_factory, metadata):
    path = tmp_path_factory.getbasetemp() / "a.png"
    png.write(path, PICTURE, metadata)
    assert png.read_metadata(path) == metadata
    assert (png.read(path) == PICTURE).all()
    assert (np.asarray(Image.open(path)) == PICTURE).all()
    assert png.read_size(path) == (7, 5)


def test_pillow_reads_the_metadata_and_finds_no_other_text(tmp_path):
    png.write(tmp_path / "a.png", PICTURE, {"prompt": "ein Äpfel 🍏"})
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert list(image.info) == ["diffjax"]
        assert json.loads(image.info["diffjax"]) == {"prompt": "ein Äpfel 🍏"}
    png.write(tmp_path / "b.png", PICTURE)
    assert png.read_metadata(tmp_path / "b.png") is None
    assert not Image.open(tmp_path / "b.png").info


def test_a_failed_write_leaves_the_old_picture_and_no_other_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    png.write(path, PICTURE)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"a\.png: No space left"):
        png.write(path, 255 - PICTURE)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "a.png").symlink_to(tmp_path / "elsewhere")
    png.write(tmp_path / "a.png", PICTURE)
    assert (tmp_path / "elsewhere").read_text() == "kept"
    assert not (tmp_path / "a.png").is_symlink()


def test_every_flipped_byte_and_every_truncation_is_noticed(tmp_path):
    whole = png.encode(PICTURE, {"a": 1})
    path = tmp_path / "a.png"
    path.write_bytes(whole)
    png.check_whole(path)
    damaged = [whole[:i] for i in range(0, len(whole), 3)] + [whole + b"x"]
    damaged += [whole[:i] + bytes([whole[i] ^ 16]) + whole[i + 1 :] for i in range(len(whole))]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.png: "):
            png.check_whole(path)


@pytest.mark.parametrize(
    "size", [(13_000, 13_000), (2**31 - 1, 2**31 - 1), (0, 5), (1, 64_000_001)]
)
def test_a_too_large_size_is_refused_before_anything_is_decoded(size, tmp_path, monkeypatch):
    def decoded(*args, **kwargs):
        raise AssertionError("decoded")

    path = crafted(tmp_path / "a.png", chunk(b"IDAT", zlib.compress(bytes(9))), size=size)
    monkeypatch.setattr(Image, "open", decoded)
    for function in (png.read_size, png.read_metadata, png.check_whole, png.read):
        with pytest.raises(ValueError, match=f"its header says {size[0]} x {size[1]} px"):
            function(path)


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([ours(b"\0" * 30_000_000, packed=True)], "is too long"),
        ([ours(b" " * (png.MAX_METADATA_BYTES + 99))], "is too long"),
        ([chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**6)))] * 33, "more than 32 texts"),
        ([chunk(b"tEXt", b"a\0" + bytes(1 << 22))], "more than 32 texts or 4,194,304 bytes"),
        ([chunk(b"blah", b"")] * 1000, "more than 1000 chunks"),
        ([ours(b"{}"), ours(b"{}")], "2 texts have the key"),
        ([ours(b"[" * 100_000)], "is not JSON"),
        ([ours(b"\xff\xfe{}")], "is not JSON"),
        ([ours(b'{"a": NaN}')], "is not JSON"),
        ([ours(b'{"a": ' + b"1" * 100_000 + b"}")], "is not JSON"),
        ([ours(b"[]")], "is not a JSON object"),
        ([chunk(b"iTXt", b"diffjax\0")], "is damaged"),
        ([chunk(b"iTXt", b"diffjax\0\1\0\0\0no zlib")], "is damaged"),
        ([ours(b"{}")[:-1] + b"\0"], "is damaged"),
        ([struct.pack(">I", 2**31) + b"iTXt"], "is cut off"),
    ],
)  # fmt: skip
def test_forged_texts_are_refused_in_one_line_and_with_little_memory(
    chunks, words, tmp_path, monkeypatch
):
    monkeypatch.setattr(png, "MAX_CHUNKS", 1000)
    path = crafted(tmp_path / "a.png", *chunks)
    del chunks
    tracemalloc.start()
    with pytest.raises(ValueError, match=words) as error:
        png.read_metadata(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert most < 4_000_000


def test_compressed_metadata_of_another_program_are_read(tmp_path):
    path = crafted(tmp_path / "a.png", ours(b'{"a": 1}', packed=True))
    assert png.read_metadata(path) == {"a": 1}


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("x")])
def test_a_file_that_is_not_a_png_is_refused(make, tmp_path):
    path = tmp_path / "a.png"
    make(path)
    with pytest.raises(ValueError, match=r"a\.png: (no such file|is not a PNG)"):
        png.read_metadata(path)


def test_metadata_are_limited_by_their_bytes(tmp_path):
    """Letters of other scripts take several; what is written can be read again."""
    most = png.MAX_METADATA_BYTES - len('{"p": ""}')
    whole = {"p": "é" * (most // 2)}
    path = tmp_path / "x.png"
    png.write(path, PICTURE, whole)
    assert png.read_metadata(path) == whole
    with pytest.raises(ValueError, match="metadata of"):
        png.encode(PICTURE, {"p": "é" * (most // 2 + 1)})
